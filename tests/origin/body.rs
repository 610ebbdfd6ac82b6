//! Bodies: seeded content that client and test can hash on their own, sending and reading under flow control.
//! Nothing here holds more of a body than one chunk.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::stats::Stats;

/// Size of the pieces the content is made of.
pub const CHUNK: usize = 64 * 1024;
const PATTERN: usize = 1024 * 1024;

/// Why a stream ended before its answer was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer reset the stream or went away.
    ByPeer,
    /// This behaviour reset the stream or closed the connection, as the path asked.
    ByUs,
}

/// Pseudo-random content: every 64 KiB chunk starts with its own index, so that a lost, repeated or moved chunk
/// changes the hash, and a chunk costs one copy and not one computation a byte.
#[derive(Debug)]
pub struct Content {
    pattern: Vec<u8>,
    index: u64,
    left: u64,
}

impl Content {
    /// `length` bytes that depend on `seed` alone.
    pub fn new(seed: u64, length: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // A body of one chunk needs no more than that: thousands of small ones are asked for at once.
        let mut pattern = vec![0; if length <= CHUNK as u64 { CHUNK } else { PATTERN + CHUNK }];
        random.fill(&mut pattern);
        Self { pattern, index: 0, left: length }
    }

    /// The hash that a complete and correct transfer has, in lower-case hexadecimal.
    pub fn sha256(seed: u64, length: u64) -> String {
        let mut hash = Sha256::new();
        for chunk in Self::new(seed, length) {
            hash.update(&chunk);
        }
        hex(&hash.finalize())
    }
}

impl Iterator for Content {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let start = (self.index.wrapping_mul(7919) % PATTERN as u64) as usize;
        let mut chunk = self.pattern[start..start + CHUNK].to_vec();
        chunk[..8].copy_from_slice(&self.index.to_le_bytes());
        chunk.truncate(usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK));
        self.index += 1;
        self.left -= chunk.len() as u64;
        Some(chunk.into())
    }
}

/// Sends all of `data`, waiting for stream and connection windows; ends the stream when `end`.
///
/// # Errors
/// `Ended::ByPeer` when the stream was reset or the connection is gone.
pub async fn send(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
    stats: &Stats,
) -> Result<(), Ended> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(granted)) => granted,
            Some(Err(_)) | None => return Err(Ended::ByPeer),
        };
        let part = data.split_to(granted.min(data.len()));
        stats.body_bytes_sent.fetch_add(part.len() as u64, Relaxed);
        stream.send_data(part, end && data.is_empty()).map_err(|_cause| Ended::ByPeer)?;
    }
    Ok(())
}

/// Reads the next piece of the request body and gives its window back at once. `None` at its end.
///
/// # Errors
/// `Ended::ByPeer` when the stream was reset or the connection is gone.
pub async fn receive(body: &mut RecvStream, stats: &Stats) -> Result<Option<Bytes>, Ended> {
    let data = receive_unreleased(body, stats).await?;
    if let Some(data) = &data {
        body.flow_control().release_capacity(data.len()).map_err(|_cause| Ended::ByPeer)?;
    }
    Ok(data)
}

/// Reads the whole request body at `rate` bytes a second by giving the window back slowly, and hashes it.
///
/// # Errors
/// `Ended::ByPeer` when the stream was reset or the connection is gone.
pub async fn hash(
    body: &mut RecvStream,
    rate: Option<u64>,
    stats: &Stats,
) -> Result<(u64, String), Ended> {
    let (started, mut length, mut hash) = (Instant::now(), 0u64, Sha256::new());
    while let Some(data) = receive_unreleased(body, stats).await? {
        hash.update(&data);
        length += data.len() as u64;
        if let Some(rate) = rate {
            let due = Duration::from_millis(length.saturating_mul(1000) / rate.max(1));
            tokio::time::sleep_until(started + due).await;
        }
        body.flow_control().release_capacity(data.len()).map_err(|_cause| Ended::ByPeer)?;
    }
    Ok((length, hex(&hash.finalize())))
}

async fn receive_unreleased(body: &mut RecvStream, stats: &Stats) -> Result<Option<Bytes>, Ended> {
    match body.data().await {
        Some(Ok(data)) => {
            stats.body_bytes_received.fetch_add(data.len() as u64, Relaxed);
            Ok(Some(data))
        }
        Some(Err(_)) => Err(Ended::ByPeer),
        None => Ok(None),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_the_length_asked_for_and_depends_on_the_seed() {
        for length in [0, 1, 7, CHUNK as u64, CHUNK as u64 + 1, 200_000] {
            let sum: usize = Content::new(1, length).map(|chunk| chunk.len()).sum();
            assert_eq!(sum as u64, length);
        }
        assert_eq!(Content::sha256(7, 200_000), Content::sha256(7, 200_000));
        assert_ne!(Content::sha256(7, 200_000), Content::sha256(8, 200_000));
    }
}
