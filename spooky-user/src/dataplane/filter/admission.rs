//! What a route admits. Imports `rate_limit`.

use std::sync::Arc;

use super::rate_limit::RateLimit;

/// The limits of one route.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Octets of content a request may have; `u64::MAX` is no limit.
    pub request_body_max: u64,
    /// How many requests there may be.
    pub rate: Option<Arc<RateLimit>>,
}
