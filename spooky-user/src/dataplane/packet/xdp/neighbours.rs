//! To whom on the link, and by which queue, the datagrams of a path go: as the path's last good frame came. A table of fixed
//! size; who is not in it is sent to by the UDP socket. Imports only `frame` and `packet`.

use std::net::{IpAddr, SocketAddr};

use spooky_common::siphash::siphash24;

use super::frame::Link;
use crate::dataplane::packet::Path;

/// Places for one hash: the path that was heard longest ago makes room.
const WAYS: usize = 4;

/// How to reach a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// What stands before the IP header.
    pub link: Link,
    /// The queue, by its place with the worker.
    pub queue: usize,
}

/// The table of one worker.
pub struct Neighbours {
    places: Box<[Option<Place>]>,
    key: (u64, u64),
    /// Counts what was learnt; wraps in centuries.
    clock: u64,
}

#[derive(Clone, Copy)]
struct Place {
    path: Path,
    neighbour: Neighbour,
    heard: u64,
}

impl Neighbours {
    /// Room for `paths`, rounded up to a power of two. `key` is random, so that nobody can choose whom to displace.
    #[must_use]
    pub fn new(paths: usize, key: (u64, u64)) -> Self {
        let places = paths.max(WAYS).next_power_of_two();
        Self { places: vec![None; places].into(), key, clock: 0 }
    }

    /// The neighbour of a path.
    #[must_use]
    pub fn find(&self, path: Path) -> Option<&Neighbour> {
        let ways = self.places.get(self.ways(path))?;
        ways.iter().flatten().find(|place| place.path == path).map(|place| &place.neighbour)
    }

    /// A frame of the path has come by `neighbour`. Only with `proven` does that change where a known path goes: a frame
    /// that claims to be of it proves nothing.
    pub fn hear(&mut self, path: Path, neighbour: Neighbour, proven: bool) {
        self.clock += 1;
        let clock = self.clock;
        let ways = self.ways(path);
        let Some(ways) = self.places.get_mut(ways) else { return };
        if let Some(place) = ways.iter_mut().flatten().find(|place| place.path == path) {
            place.heard = clock;
            if proven {
                place.neighbour = neighbour;
            }
            return;
        }
        let oldest = ways.iter_mut().min_by_key(|place| place.map_or(0, |place| place.heard));
        if let Some(oldest) = oldest {
            *oldest = Some(Place { path, neighbour, heard: clock });
        }
    }

    /// Forgets everybody: queues have come or gone.
    pub fn clear(&mut self) {
        self.places.fill(None);
    }

    fn ways(&self, path: Path) -> std::ops::Range<usize> {
        let (k0, k1) = self.key;
        let [high, low] = words(path.peer);
        let ports = u64::from(path.peer.port()) << 16 | u64::from(path.local.port());
        let hash = siphash24(k0, k1, [high, low, ports]);
        // A power of two of places, in groups of WAYS.
        let groups = (self.places.len() / WAYS).max(1) as u64;
        let group = usize::try_from(hash & (groups - 1)).unwrap_or(0);
        group * WAYS..(group + 1) * WAYS
    }
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Neighbours").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

fn words(address: SocketAddr) -> [u64; 2] {
    let octets = match address.ip() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(octets >> 64) as u64, octets as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: u32) -> Path {
        let peer = SocketAddr::from((number.to_be_bytes(), 4_000));
        Path { local: "192.0.2.1:443".parse().unwrap(), peer }
    }

    fn neighbour(queue: usize) -> Neighbour {
        let frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, queue as u8, 8, 0];
        Neighbour { link: Link::of_reply(&frame).unwrap(), queue }
    }

    #[test]
    fn a_path_is_known_until_many_others_were_heard() {
        let mut table = Neighbours::new(256, (1, 2));
        table.hear(path(1), neighbour(3), false);
        assert_eq!(table.find(path(1)), Some(&neighbour(3)));
        assert_eq!(table.find(path(2)), None);
        // Heard again and again it stays, however many others come.
        for number in 2..20_000 {
            table.hear(path(number), neighbour(0), false);
            table.hear(path(1), neighbour(3), false);
        }
        assert_eq!(table.find(path(1)), Some(&neighbour(3)));
        for number in 20_000..40_000 {
            table.hear(path(number), neighbour(0), false);
        }
        assert_eq!(table.find(path(1)), None);
        let known = (20_000..40_000).filter(|number| table.find(path(*number)).is_some()).count();
        assert_eq!(known, 256, "the table is full and no larger");
        table.clear();
        assert_eq!(table.find(path(39_999)), None);
    }

    #[test]
    fn only_a_proven_frame_moves_a_path() {
        let mut table = Neighbours::new(16, (1, 2));
        table.hear(path(1), neighbour(0), false);
        table.hear(path(1), neighbour(5), false);
        assert_eq!(table.find(path(1)), Some(&neighbour(0)));
        table.hear(path(1), neighbour(5), true);
        assert_eq!(table.find(path(1)), Some(&neighbour(5)));
    }

    #[test]
    fn both_ends_make_a_path() {
        let mut table = Neighbours::new(16, (1, 2));
        table.hear(path(1), neighbour(0), false);
        let other = Path { local: "192.0.2.9:443".parse().unwrap(), ..path(1) };
        assert_eq!(table.find(other), None);
    }
}
