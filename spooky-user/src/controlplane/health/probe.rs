//! One probe: a connection of its own, one GET, one status. Never touches the pools, so it measures what a new client would
//! see, and a full pool is not an unhealthy backend.
//!
//! May import: dataplane::upstream (settings and how to connect).

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::{Method, Request, StatusCode, Version};
use tokio::time::{Instant, timeout_at};

use crate::dataplane::upstream::cluster::{Endpoint, HealthCheck};
use crate::dataplane::upstream::connect::{self, ConnectError};

/// Why a probe failed; the text goes to the log.
#[derive(Debug)]
pub(super) enum ProbeError {
    /// The whole probe took longer than `health_check.timeout`.
    Timeout(Duration),
    /// There is no connection.
    Connect(ConnectError),
    /// The stream or the connection failed before the response head.
    Http2(h2::Error),
    /// The backend closed the connection before the response head.
    Closed,
    /// Not 2xx.
    Status(StatusCode),
    /// Path or host do not make a request.
    Request(http::Error),
}

/// Probes once.
///
/// # Errors
/// Everything but a 2xx response head within `check.timeout` is a failure.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(super) async fn probe(endpoint: &Endpoint, check: &HealthCheck) -> Result<(), ProbeError> {
    let deadline = Instant::now() + check.timeout;
    let exchange = exchange(endpoint, check, deadline);
    match timeout_at(deadline, exchange).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(ProbeError::Status(status)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ProbeError::Timeout(check.timeout)),
    }
}

async fn exchange(
    endpoint: &Endpoint,
    check: &HealthCheck,
    deadline: Instant,
) -> Result<StatusCode, ProbeError> {
    let request = request(endpoint, check)?;
    let settings = &endpoint.settings;
    let transport = connect::transport(endpoint.address, settings.tls.as_ref())
        .await
        .map_err(ProbeError::Connect)?;
    let (mut sender, connection) =
        connect::http2(transport, settings).await.map_err(ProbeError::Connect)?;
    let mut connection = pin!(connection);
    let (response, stream) = sender.send_request(request, true).map_err(ProbeError::Http2)?;
    let status = match select(response, connection.as_mut()).await {
        Either::Left((Ok(response), _)) => response.status(),
        Either::Left((Err(error), _)) | Either::Right((Err(error), _)) => {
            return Err(ProbeError::Http2(error));
        }
        Either::Right((Ok(()), _)) => return Err(ProbeError::Closed),
    };
    // The verdict is known. Without handles h2 resets what is left of the response, says GOAWAY and closes.
    drop((sender, stream));
    if let Ok(Err(error)) = timeout_at(deadline.min(Instant::now() + FAREWELL), connection).await {
        tracing::debug!(%error, "a probe's connection did not end in order");
    }
    Ok(status)
}

/// Time for the farewell of a connection whose probe is over.
const FAREWELL: Duration = Duration::from_millis(100);

fn request(endpoint: &Endpoint, check: &HealthCheck) -> Result<Request<()>, ProbeError> {
    let scheme = if endpoint.settings.tls.is_some() { "https" } else { "http" };
    let uri = http::Uri::builder().scheme(scheme).path_and_query(check.path.as_str());
    let uri = match &check.host {
        Some(host) => uri.authority(host.as_str()),
        None => uri.authority(endpoint.address.to_string()),
    };
    let uri = uri.build().map_err(ProbeError::Request)?;
    Request::builder()
        .method(Method::GET)
        .version(Version::HTTP_2)
        .uri(uri)
        .header(http::header::USER_AGENT, "spooky-health-check")
        .body(())
        .map_err(ProbeError::Request)
}

// === impl ProbeError ===

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(limit) => write!(f, "no answer within {limit:?}"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Http2(error) => write!(f, "HTTP/2: {error}"),
            Self::Closed => f.write_str("the connection was closed before a response"),
            Self::Status(status) => write!(f, "status {status}, wanted 2xx"),
            Self::Request(error) => write!(f, "path or host of the check are unusable: {error}"),
        }
    }
}

impl std::error::Error for ProbeError {}
