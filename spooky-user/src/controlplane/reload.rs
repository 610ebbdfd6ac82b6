//! SIGHUP: the file is read again, whole; either all of it is taken or none.
//!
//! What a reload can change: listeners with their certificates and limits, routes, upstreams with their health checks,
//! access lists, weights of workers. What needs a restart is named and refused, so that nothing is silently ignored.

use std::path::PathBuf;
use std::sync::Arc;

use super::boot::Running;
use super::config::{self, Config, Listener};
use super::listeners::{self, Plan};
use crate::dataplane::quic::tls::CertificateStore;
use crate::dataplane::worker::Handle;

/// A configuration that was read and checked, with its certificates.
#[derive(Debug)]
pub struct Candidate {
    /// The configuration.
    pub config: Config,
    /// Certificates by listener, in the configuration's order.
    pub certificates: Vec<Arc<CertificateStore>>,
}

/// Why a reload was not taken; what was in force stays.
#[derive(Debug)]
pub enum Refusal {
    /// The file is wrong. One line each.
    Invalid(Vec<String>),
    /// It changes what only a restart can. One line each.
    RestartOnly(Vec<String>),
    /// It is right, and the system does not let it come into force.
    Impossible(String),
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
    match listeners::certificates(&config.listeners) {
        Ok(certificates) => Ok(Candidate { config, certificates }),
        Err(errors) => Err(Refusal::Invalid(errors.iter().map(ToString::to_string).collect())),
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

/// Binds what is new and has the kernel steer it.
///
/// # Errors
///
/// [`Refusal::Impossible`]; nothing has changed then.
pub fn prepare(
    running: &mut Running,
    listeners: &[Listener],
    certificates: Vec<Arc<CertificateStore>>,
) -> Result<Plan, Refusal> {
    let impossible = |error: &dyn std::fmt::Display| Refusal::Impossible(error.to_string());
    let plan =
        running.listeners.plan(listeners, certificates).map_err(|error| impossible(&error))?;
    let busy = |worker: &&Handle| !worker.has_ended() && worker.inbox.room() < plan.orders();
    if let Some(worker) = running.workers.iter().find(busy) {
        let id = worker.id;
        return Err(impossible(&format!("worker {id} has not carried out earlier reloads yet")));
    }
    for (count, opening) in plan.open.iter().enumerate() {
        if let Err(error) = running.supervisor.open(opening) {
            for opened in plan.open.iter().take(count + 1) {
                running.supervisor.close(opened.terms.id);
            }
            return Err(impossible(&error));
        }
    }
    Ok(plan)
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
            Self::Impossible(line) => {
                tracing::error!("configuration not reloaded; the old one stays: {line}");
            }
        }
    }
}
