//! What is done to datagrams, as a value, and read from text as `spooky-relay` takes it. Imports nothing.

use std::str::FromStr;
use std::time::Duration;

/// What is done to datagrams, each direction alike. Shares are of 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Impairment {
    /// Where the random sources start.
    pub seed: u64,
    /// Share of the datagrams that are lost.
    pub loss: f64,
    /// Share of the datagrams of which one octet is changed.
    pub corruption: f64,
    /// Longest run of datagrams that are lost, or spoiled, one after another; 0 is no limit.
    pub burst_max: u32,
    /// Share of the datagrams that arrive twice.
    pub duplication: f64,
    /// Share of the datagrams that the next one overtakes.
    pub reordering: f64,
    /// Time on the way, one way.
    pub delay: Duration,
    /// Further time on the way, anything up to this; datagrams may overtake each other by it.
    pub jitter: Duration,
    /// Bits a second of each flow, IP and UDP headers included; 0 is no limit.
    pub rate: u64,
    /// Datagrams that wait for a link with a rate; what comes on top is lost. 0 is no limit.
    pub queue: usize,
    /// Times in which nothing arrives.
    pub darkness: Option<Darkness>,
}

/// The path works for one time, is dark for another, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Darkness {
    pub light: Duration,
    pub dark: Duration,
}

impl Darkness {
    /// Whether it is dark this long after the first datagram.
    pub fn at(self, elapsed: Duration) -> bool {
        let turn = (self.light + self.dark).as_nanos().max(1);
        elapsed.as_nanos() % turn >= self.light.as_nanos()
    }
}

impl FromStr for Impairment {
    type Err = String;

    /// `loss=0.02,burst=3,delay=15ms,rate=10000000,queue=25,dark=5s/2s`: names and values with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut impairment = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.trim().split_once('=').ok_or(format!("{part:?} has no ="))?;
            let wrong = || format!("{name}: {value:?} does not fit");
            match name {
                "seed" => impairment.seed = value.parse().map_err(|_cause| wrong())?,
                "loss" => impairment.loss = share(value).ok_or_else(wrong)?,
                "corruption" => impairment.corruption = share(value).ok_or_else(wrong)?,
                "burst" => impairment.burst_max = value.parse().map_err(|_cause| wrong())?,
                "duplication" => impairment.duplication = share(value).ok_or_else(wrong)?,
                "reordering" => impairment.reordering = share(value).ok_or_else(wrong)?,
                "delay" => impairment.delay = time(value).ok_or_else(wrong)?,
                "jitter" => impairment.jitter = time(value).ok_or_else(wrong)?,
                "rate" => impairment.rate = value.parse().map_err(|_cause| wrong())?,
                "queue" => impairment.queue = value.parse().map_err(|_cause| wrong())?,
                "dark" => {
                    let (light, dark) = value.split_once('/').ok_or_else(wrong)?;
                    let light = time(light).ok_or_else(wrong)?;
                    impairment.darkness =
                        Some(Darkness { light, dark: time(dark).ok_or_else(wrong)? });
                }
                _ => return Err(format!("no impairment is called {name:?}")),
            }
        }
        Ok(impairment)
    }
}

fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

/// `15ms` or `2s`.
fn time(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(milliseconds) => milliseconds.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impairment_can_be_written() {
        let text = "seed=7,loss=0.3,corruption=0.02,burst=3,duplication=0.1,reordering=0.2,\
                    delay=15ms,jitter=5ms,rate=10000000,queue=25,dark=5s/2s";
        let expected = Impairment {
            seed: 7,
            loss: 0.3,
            corruption: 0.02,
            burst_max: 3,
            duplication: 0.1,
            reordering: 0.2,
            delay: Duration::from_millis(15),
            jitter: Duration::from_millis(5),
            rate: 10_000_000,
            queue: 25,
            darkness: Some(Darkness {
                light: Duration::from_secs(5),
                dark: Duration::from_secs(2),
            }),
        };
        assert_eq!(text.parse(), Ok(expected));
        assert_eq!("".parse(), Ok(Impairment::default()));
        for wrong in ["loss", "loss=2", "delay=15", "dark=5s", "fog=1"] {
            assert!(wrong.parse::<Impairment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn light_and_dark_take_turns() {
        let darkness = Darkness { light: Duration::from_secs(5), dark: Duration::from_secs(2) };
        let dark_at = |second| darkness.at(Duration::from_secs(second));
        let dark: Vec<u64> = (0..15).filter(|second| dark_at(*second)).collect();
        assert_eq!(dark, [5, 6, 12, 13]);
    }
}
