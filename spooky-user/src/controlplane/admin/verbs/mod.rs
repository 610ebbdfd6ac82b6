//! What can be asked of the control plane over the control socket: one flat table, one file for each family of verbs. Each
//! verb runs on the control plane's thread and may take a few milliseconds, no more. May import: boot's state, its siblings.
//!
//! A new verb is a function and a row here, and what shows its answer in `ctl`.

mod attack;
mod lists;
mod status;
mod steering;
mod trace;

use http::{Method, StatusCode};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::controlplane::boot::Running;

/// One operation.
#[derive(Debug)]
pub struct Verb {
    /// `GET` reads, `POST` changes.
    pub method: Method,
    /// The target's path.
    pub path: &'static str,
    /// One line for the list.
    pub help: &'static str,
    /// Carries it out. The reply may be given later, within a few seconds.
    pub run: fn(&mut Running, Ask, Reply),
}

/// All of them.
pub static VERBS: [Verb; 11] = [
    Verb {
        method: Method::GET,
        path: "/status",
        help: "the daemon, its workers and its kernel programs",
        run: status::status,
    },
    Verb {
        method: Method::GET,
        path: "/steering",
        help: "where packets go: at the interface, at the sockets, in each worker",
        run: steering::steering,
    },
    Verb {
        method: Method::GET,
        path: "/attack",
        help: "attack mode, and the load that it goes by",
        run: attack::show,
    },
    Verb {
        method: Method::POST,
        path: "/attack",
        help: "turns attack mode on, off, or leaves it to the load: mode (auto, on or off)",
        run: attack::order,
    },
    Verb {
        method: Method::POST,
        path: "/trace/begin",
        help: "captures frames at the interface: frames, seconds, every",
        run: trace::begin,
    },
    Verb {
        method: Method::GET,
        path: "/trace",
        help: "how far the capture is",
        run: trace::progress,
    },
    Verb {
        method: Method::POST,
        path: "/trace/end",
        help: "ends the capture and gives the trace",
        run: trace::end,
    },
    Verb {
        method: Method::GET,
        path: "/lists",
        help: "who may connect: ?match=ADDRESS, or page by page ?after=NEXT",
        run: lists::list,
    },
    Verb {
        method: Method::POST,
        path: "/lists/block",
        help: "block a network: prefix, ttl, reason, dry_run",
        run: lists::block,
    },
    Verb {
        method: Method::POST,
        path: "/lists/allow",
        help: "allow a network, whatever blocks it: as above",
        run: lists::allow,
    },
    Verb {
        method: Method::POST,
        path: "/lists/unblock",
        help: "remove a dynamic entry: prefix, list (deny or allow)",
        run: lists::unblock,
    },
];

/// Who asks, as the kernel knows it (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The user.
    pub uid: u32,
    /// The process, if it is in sight.
    pub pid: Option<i32>,
}

/// What is asked.
#[derive(Debug)]
pub struct Ask {
    /// Behind the `?` of the target.
    pub query: String,
    /// JSON, or empty. Not read yet.
    pub content: Bytes,
    /// By whom.
    pub asker: Asker,
}

/// Where the answer goes. Dropped without one, it says that the daemon ends.
#[derive(Debug)]
pub struct Reply(pub(super) oneshot::Sender<Answer>);

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// 200, or why not.
    pub status: StatusCode,
    /// An object; with `error` and `reason` when it was refused.
    pub body: Value,
}

/// An operation on its way to the control plane.
#[derive(Debug)]
pub struct Order {
    pub(super) verb: &'static Verb,
    pub(super) ask: Ask,
    pub(super) reply: Reply,
}

/// The verb of a path and method; else which methods the path has, none if there is no such path.
pub(super) fn find(path: &str, method: &Method) -> Result<&'static Verb, String> {
    let here = || VERBS.iter().filter(|verb| verb.path == path);
    here().find(|verb| verb.method == *method).ok_or_else(|| {
        let methods: Vec<&str> = here().map(|verb| verb.method.as_str()).collect();
        methods.join(", ")
    })
}

// === impl Order ===

impl Order {
    /// Carries it out.
    pub fn carry_out(self, running: &mut Running) {
        (self.verb.run)(running, self.ask, self.reply);
    }
}

// === impl Ask ===

impl Ask {
    /// The content as what the verb takes.
    ///
    /// # Errors
    /// The answer that says what is wrong with it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Answer> {
        serde_json::from_slice(&self.content).map_err(|error| {
            let message = format!("the content is not what this takes: {error}");
            Answer::refused(StatusCode::BAD_REQUEST, "content", &message)
        })
    }

    /// The value of a key of the query. Nothing is decoded: no value needs it.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

// === impl Reply ===

impl Reply {
    /// Answers. Who has gone meanwhile is not told.
    pub fn send(self, answer: Answer) {
        let _ = self.0.send(answer);
    }
}

// === impl Answer ===

impl Answer {
    /// It was done.
    #[must_use]
    pub fn done(body: Value) -> Self {
        Self { status: StatusCode::OK, body }
    }

    /// It was not. `reason` is one word for programs, `error` a sentence for people.
    #[must_use]
    pub fn refused(status: StatusCode, reason: &str, error: &str) -> Self {
        Self { status, body: json!({"error": error, "reason": reason}) }
    }
}
