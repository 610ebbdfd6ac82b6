//! Faults on purpose, for the tests of what a panic costs: in debug builds alone, and there only when `SPOOKY_FAULTS=1` stands
//! in the environment. A release build has nothing of this. Imports nothing of the crate.

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The task that serves a request for `/fault/request`.
    Request,
    /// The service of the connection on which `/fault/connection` is asked for.
    Connection,
    /// The turn of the worker that is asked for `/fault/worker`.
    Worker,
}

/// Unwinds, without the panic hook, if this path asks for it at this point.
#[cfg(debug_assertions)]
pub fn strike(point: Point, path: &str) {
    if is_asked_for(point, path) {
        std::panic::resume_unwind(Box::new("a fault on purpose"));
    }
}

/// Whether this path asks for a fault at this point.
#[cfg(debug_assertions)]
pub fn is_asked_for(point: Point, path: &str) -> bool {
    static ENABLED: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("SPOOKY_FAULTS").is_some_and(|it| it == "1"));
    let wanted = match point {
        Point::Request => "/fault/request",
        Point::Connection => "/fault/connection",
        Point::Worker => "/fault/worker",
    };
    path == wanted && *ENABLED
}

/// Does nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn strike(_: Point, _: &str) {}

/// Never: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn is_asked_for(_: Point, _: &str) -> bool {
    false
}
