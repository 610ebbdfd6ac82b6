//! SIGHUP: the file is read again, whole; either all of it is taken or none.
//!
//! What a reload can change: routes, upstreams with their health checks, access lists, certificates. What needs a restart is named and refused, so that nothing is silently ignored.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::{self, Config};
use crate::dataplane::quic::tls::CertificateStore;

/// A configuration that was read and checked, with its certificates.
#[derive(Debug)]
pub struct Candidate {
    /// The configuration.
    pub config: Config,
    /// Certificates by listener.
    pub certificates: Vec<Arc<CertificateStore>>,
}

/// Why a reload was not taken; what was in force stays.
#[derive(Debug)]
pub enum Refusal {
    /// The file is wrong. One line each.
    Invalid(Vec<String>),
    /// It changes what only a restart can. One line each.
    RestartOnly(Vec<String>),
}

/// Reads the file and its certificates. Blocks; run it off the control plane's thread.
///
/// # Errors
///
/// [`Refusal::Invalid`] with everything that is wrong.
pub fn read(path: PathBuf) -> Result<Candidate, Refusal> {
    let config = config::load(&path).map_err(|errors| {
        Refusal::Invalid(errors.problems().iter().map(ToString::to_string).collect())
    })?;
    let mut certificates = Vec::new();
    let mut problems = Vec::new();
    for listener in &config.listeners {
        match CertificateStore::load(&listener.certificates) {
            Ok(store) => certificates.push(Arc::new(store)),
            Err(errors) => {
                let lines = errors.into_iter().map(|(_, error)| error.to_string());
                problems.extend(lines);
            }
        }
    }
    if problems.is_empty() {
        Ok(Candidate { config, certificates })
    } else {
        Err(Refusal::Invalid(problems))
    }
}

/// Whether the running process can become what the candidate says.
///
/// # Errors
///
/// [`Refusal::RestartOnly`] with every key that stands against it.
pub fn admit(running: &Config, candidate: Candidate) -> Result<Candidate, Refusal> {
    let changes = config::restart_only_changes(running, &candidate.config);
    if changes.is_empty() { Ok(candidate) } else { Err(Refusal::RestartOnly(changes)) }
}

impl Refusal {
    /// Says it in the log.
    pub fn log(&self) {
        match self {
            Self::Invalid(lines) => {
                tracing::error!("configuration not reloaded: it has errors; the old one stays");
                for line in lines {
                    tracing::error!("{line}");
                }
            }
            Self::RestartOnly(lines) => {
                tracing::error!(
                    "configuration not reloaded: these need a restart; the old one stays"
                );
                for line in lines {
                    tracing::error!("{line}");
                }
            }
        }
    }
}
