//! The diagnostic log: `tracing` events as text or JSON lines. Imports nothing of the crate.
//!
//! The data plane emits nothing at `info` per packet, connection or request; those events are `debug`. Libraries are kept at
//! `warn`, because their `debug` says what bytes they saw. Writing is synchronous: a line is out before a crash.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The least severe events of spooky that are written.
    pub level: Level,
    /// One line an event, in this form.
    pub format: Format,
    /// Where to.
    pub output: Output,
}

/// Severity, `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something is worse than configured.
    Warn,
    /// What an operator did, and what came of it.
    Info,
    /// What single connections and requests do: not for production traffic.
    Debug,
}

/// Form of a line, `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object.
    Json,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why the log could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It was set up before: a process has one.
    AlreadySet,
}

/// Sets up the log of this process. Before it, events go nowhere.
///
/// # Errors
/// [`Error::AlreadySet`].
pub fn init(settings: Settings) -> Result<(), Error> {
    let set = match settings.output {
        Output::Stdout => {
            let ansi = std::io::stdout().is_terminal();
            tracing::subscriber::set_global_default(subscriber(settings, ansi, std::io::stdout))
        }
        Output::Stderr => {
            let ansi = std::io::stderr().is_terminal();
            tracing::subscriber::set_global_default(subscriber(settings, ansi, std::io::stderr))
        }
    };
    set.map_err(|_set_before| Error::AlreadySet)
}

fn subscriber<W>(settings: Settings, ansi: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        Format::Text => lines.with_ansi(ansi).boxed(),
        Format::Json => lines.with_ansi(false).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter(settings.level)))
}

fn filter(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    // A target is a module path; the prefix takes in the library and the binary.
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("spooky", level)
}

// === impl Level, Format, Error ===

impl FromStr for Level {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err(()),
        }
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadySet => f.write_str("the log was set up before; set it up once"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(level: Level, format: Format) -> String {
        let page = Page::default();
        let writer = page.clone();
        let settings = Settings { level, format, output: Output::Stderr };
        let subscriber = subscriber(settings, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "spooky_user::dataplane", "ours debug");
            tracing::info!(target: "spooky_user::controlplane", workers = 4, "ours info");
            tracing::error!(target: "spooky", "ours \x1b[31merror\n");
            tracing::debug!(target: "h2::codec", "theirs debug");
            tracing::info!(target: "hyper", "theirs info");
            tracing::warn!(target: "rustls", "theirs warn");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_stay_quiet() {
        let text = written(Level::Info, Format::Text);
        assert!(text.contains("ours info") && text.contains("theirs warn"), "{text}");
        assert!(!text.contains("debug") && !text.contains("theirs info"), "{text}");
        let text = written(Level::Debug, Format::Text);
        assert!(text.contains("ours debug") && !text.contains("theirs debug"), "{text}");
        let text = written(Level::Error, Format::Text);
        assert!(
            text.contains("error") && !text.contains("warn") && !text.contains("info"),
            "{text}"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = written(Level::Info, Format::Json);
        assert_eq!(text.lines().count(), 3, "{text}");
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["level"].is_string() && value["message"].is_string(), "{line}");
        }
        assert!(text.contains(r#""workers":4"#));
    }

    #[test]
    fn words_of_the_configuration() {
        assert_eq!("warn".parse(), Ok(Level::Warn));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("Info".parse::<Level>(), Err(()));
        assert_eq!("yaml".parse::<Format>(), Err(()));
    }
}
