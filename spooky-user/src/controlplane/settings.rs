//! What the configuration says, in the types of those who carry it out. May import: config, kernel, telemetry.

use super::config::{self, LogDestination, schema};
use super::kernel;
use crate::telemetry::{access_log, logging};

/// For [`kernel::Kernel::load`].
#[must_use]
pub fn kernel(ebpf: &config::Ebpf) -> kernel::Settings {
    kernel::Settings {
        mode: match ebpf.mode {
            schema::EbpfMode::Off => kernel::Mode::Off,
            schema::EbpfMode::Reuseport => kernel::Mode::Reuseport,
            schema::EbpfMode::Xdp => kernel::Mode::Xdp,
        },
        interface: ebpf.interface.clone(),
        attach: match ebpf.attach {
            schema::Attach::Auto => kernel::Attach::Auto,
            schema::Attach::Native => kernel::Attach::Native,
            schema::Attach::Generic => kernel::Attach::Generic,
        },
        on_failure: match ebpf.on_failure {
            schema::OnFailure::Fallback => kernel::OnFailure::Fallback,
            schema::OnFailure::Abort => kernel::OnFailure::Abort,
        },
        sample_every: ebpf.sample_drops,
    }
}

/// Mode of the control socket's file. Who may write to it may connect.
#[must_use]
pub fn socket_mode(access: schema::SocketAccess) -> u32 {
    match access {
        schema::SocketAccess::Owner => 0o600,
        schema::SocketAccess::Group => 0o660,
    }
}

/// For [`access_log::AccessLog::open`].
#[must_use]
pub fn access_log(settings: &config::AccessLog) -> access_log::Target {
    match &settings.destination {
        LogDestination::Off => access_log::Target::Off,
        LogDestination::Stdout => access_log::Target::Stdout,
        LogDestination::Stderr => access_log::Target::Stderr,
        LogDestination::File(path) => access_log::Target::File(path.clone()),
    }
}

/// For [`logging::init`]. Diagnostics go to standard error, so that an access log on standard output stays one.
#[must_use]
pub fn logging(log: &config::Log) -> logging::Settings {
    logging::Settings {
        level: match log.level {
            schema::Level::Error => logging::Level::Error,
            schema::Level::Warn => logging::Level::Warn,
            schema::Level::Info => logging::Level::Info,
            schema::Level::Debug => logging::Level::Debug,
        },
        format: match log.format {
            schema::LogFormat::Text => logging::Format::Text,
            schema::LogFormat::Json => logging::Format::Json,
        },
        output: logging::Output::Stderr,
    }
}
