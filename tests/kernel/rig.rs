//! The object loaded bare, its maps filled from one description that the host model reads as well.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use aya::{
    Ebpf, EbpfError,
    maps::{
        Array, HashMap, LpmTrie, MapError, PerCpuArray, ProgramArray, RingBuf, XskMap, lpm_trie,
    },
    programs::{ProgramError, SkReuseport, TestRun as _, TestRunOptions, Xdp},
};
use spooky_common::{
    access::Lists,
    cid::{LocalKey, Owner},
    counter::{Counter, Row},
    frame::Address,
    map::{self, AddressKey, Key, Lookup, Port, Queue, Settings, Slot},
    prefix::{ALLOW_WORDS, Compiled, DENY_WORDS},
    sample::Sample,
    steer::Keys,
    verdict::{Buckets, Listeners, Queues, Tables},
};

/// The committed object.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../spooky-user/bpf/spooky.bpf.o"
));

/// Kernel's verdict numbers (`enum xdp_action`).
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;
pub(crate) const XDP_REDIRECT: u32 = 4;

/// The receive queue that the kernel gives a test run.
pub(crate) const QUEUE: u32 = 0;

/// Everything the decision looks up, in plain values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) keys: [Option<LocalKey>; 7],
    pub(crate) settings: Settings,
    pub(crate) allow: Vec<(IpAddr, u8)>,
    pub(crate) deny: Vec<(IpAddr, u8)>,
    /// Workers and generations that are live.
    pub(crate) live: Vec<Owner>,
    /// Who owns the AF_XDP socket of [`QUEUE`].
    pub(crate) queue: Queue,
    /// Whether that socket is there.
    pub(crate) socket: bool,
    /// Look lists up in their tries and not in their words.
    pub(crate) in_tries: bool,
    /// When the next packet of each bucket is due, on the host.
    pub(crate) due: RefCell<BTreeMap<u32, u64>>,
}

/// The loaded programs and their maps.
pub(crate) struct Rig {
    pub(crate) ebpf: Ebpf,
}

/// Loads the object, or says why the test is skipped.
///
/// # Panics
/// When the kernel refuses it for another reason than missing privilege, or when privilege is missing under
/// `SPOOKY_REQUIRE_KERNEL=1`.
pub(crate) fn load(test: &str) -> Option<Rig> {
    load_object(test, OBJECT)
}

/// The same with another object of the same layout.
pub(crate) fn load_object(test: &str, object: &[u8]) -> Option<Rig> {
    match Ebpf::load(object) {
        Ok(ebpf) => {
            let mut rig = Rig { ebpf };
            rig.xdp().load().expect("the verifier accepts the XDP program");
            rig.load_further();
            rig.reuseport().load().expect("the verifier accepts the reuseport program");
            Some(rig)
        }
        Err(error) if unprivileged(&error) => {
            skip(test, "loading a kernel program needs CAP_BPF and CAP_NET_ADMIN");
            None
        }
        Err(error) => panic!("{test}: {error}"),
    }
}

/// Says SKIPPED, or fails where the kernel is required.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("SPOOKY_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
        "{test} may not be skipped: {why}"
    );
    println!("SKIPPED {test}: {why}");
}

fn unprivileged(error: &EbpfError) -> bool {
    let denied = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
        | EbpfError::ProgramError(ProgramError::LoadError { io_error, .. }) => denied(io_error),
        EbpfError::MapError(MapError::SyscallError(error))
        | EbpfError::ProgramError(ProgramError::SyscallError(error)) => denied(&error.io_error),
        _ => false,
    }
}

// === impl Rig ===

impl Rig {
    pub(crate) fn xdp(&mut self) -> &mut Xdp {
        self.ebpf.program_mut(map::PROGRAM_XDP).expect("in the object").try_into().expect("XDP")
    }

    /// Loads the programs that the XDP program goes on to, and puts them where it finds them.
    fn load_further(&mut self) {
        for (name, place) in
            [(map::PROGRAM_ANSWER, map::ANSWER_PLACE), (map::PROGRAM_GUARD, map::GUARD_PLACE)]
        {
            let program = self.ebpf.program_mut(name).expect("in the object");
            let program: &mut Xdp = program.try_into().expect("XDP");
            program.load().expect("the verifier accepts the programs that it goes on to");
            let fd = program.fd().expect("loaded").try_clone().expect("a descriptor");
            let programs = self.ebpf.map_mut(map::PROGRAMS).expect("in the object");
            let mut programs: ProgramArray<_> = programs.try_into().expect("a program array");
            programs.set(place, &fd, 0).expect("set");
        }
    }

    pub(crate) fn reuseport(&mut self) -> &mut SkReuseport {
        let program = self.ebpf.program_mut(map::PROGRAM_REUSEPORT).expect("in the object");
        program.try_into().expect("sk_reuseport")
    }

    /// Writes the whole description. For fresh maps: nothing is removed.
    pub(crate) fn apply(&mut self, setup: &Setup) {
        for (index, listener) in setup.listeners.iter().enumerate() {
            let mut ports = self.array::<Port>(map::PORTS);
            let number = u32::from(listener.port());
            let mut port = ports.get(&number, 0).expect("in range");
            setup.add_listener(&mut port, index, listener);
            ports.set(number, port, 0).expect("set");
            if !listener.ip().is_unspecified() {
                let addresses = self.ebpf.map_mut(map::ADDRESSES).expect("in the object");
                let mut addresses: HashMap<_, AddressKey, u32> =
                    addresses.try_into().expect("hash");
                addresses.insert(AddressKey::from(*listener), index as u32 + 1, 0).expect("insert");
            }
        }
        for (config_id, key) in setup.keys.iter().enumerate() {
            self.array(map::KEYS).set(config_id as u32, Key::new(*key), 0).expect("set");
        }
        self.queue(setup);
        self.owners(setup);
        self.settings(setup);
        self.words(setup);
        for (address, bits) in &setup.allow {
            self.list(map::ALLOW_V4, map::ALLOW_V6, *address, *bits);
        }
        for (address, bits) in &setup.deny {
            self.list(map::DENY_V4, map::DENY_V6, *address, *bits);
        }
    }

    /// Writes who owns the queue.
    pub(crate) fn queue(&mut self, setup: &Setup) {
        self.array(map::QUEUES).set(QUEUE, setup.queue, 0).expect("set");
    }

    /// Writes which owners are live.
    fn owners(&mut self, setup: &Setup) {
        for owner in &setup.live {
            self.array::<u32>(map::OWNERS).set(map::owner_index(*owner), 1, 0).expect("set");
        }
    }

    /// Puts an AF_XDP socket behind the queue. It need not be bound to be redirected to.
    pub(crate) fn socket(&mut self, socket: BorrowedFd<'_>) {
        let sockets = self.ebpf.map_mut(map::XSKS).expect("in the object");
        let mut sockets: XskMap<_> = sockets.try_into().expect("a map of AF_XDP sockets");
        sockets.set(QUEUE, socket.as_raw_fd(), 0).expect("set");
    }

    /// Writes the settings alone: a list that has entries is looked up as the setup says.
    pub(crate) fn settings(&mut self, setup: &Setup) {
        let lists = [
            setup.lookup(&setup.deny, IpAddr::is_ipv4),
            setup.lookup(&setup.deny, IpAddr::is_ipv6),
            setup.lookup(&setup.allow, IpAddr::is_ipv4),
            setup.lookup(&setup.allow, IpAddr::is_ipv6),
        ];
        let settings = Settings { lists: lists.map(|lookup| lookup as u8), ..setup.settings };
        self.array(map::SETTINGS).set(0, settings, 0).expect("set");
    }

    /// Writes the words of all lists.
    fn words(&mut self, setup: &Setup) {
        self.words_of::<DENY_WORDS>(map::DENY_V4_WORDS, map::DENY_V6_WORDS, &setup.deny);
        self.words_of::<ALLOW_WORDS>(map::ALLOW_V4_WORDS, map::ALLOW_V6_WORDS, &setup.allow);
    }

    fn words_of<const N: usize>(&mut self, v4: &str, v6: &str, list: &[(IpAddr, u8)]) {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for (address, bits) in list {
            match address {
                IpAddr::V4(address) => four.push((address.octets(), u32::from(*bits))),
                IpAddr::V6(address) => six.push((address.octets(), u32::from(*bits))),
            }
        }
        let four = Compiled::<N>::v4(four.into_iter()).expect("fits");
        let six = Compiled::<N>::v6(six.into_iter()).expect("fits");
        self.array::<[u32; N]>(v4).set(0, four.words(), 0).expect("set");
        self.array::<[u32; N]>(v6).set(0, six.words(), 0).expect("set");
    }

    pub(crate) fn array<V: aya::Pod>(&mut self, name: &str) -> Array<&mut aya::maps::MapData, V> {
        self.ebpf.map_mut(name).expect("in the object").try_into().expect("array")
    }

    fn list(&mut self, v4: &str, v6: &str, address: IpAddr, bits: u8) {
        let bits = u32::from(bits);
        match address {
            IpAddr::V4(address) => {
                let trie = self.ebpf.map_mut(v4).expect("in the object");
                let mut trie: LpmTrie<_, [u8; 4], u32> = trie.try_into().expect("trie");
                trie.insert(&lpm_trie::Key::new(bits, address.octets()), 1, 0).expect("insert");
            }
            IpAddr::V6(address) => {
                let trie = self.ebpf.map_mut(v6).expect("in the object");
                let mut trie: LpmTrie<_, [u8; 16], u32> = trie.try_into().expect("trie");
                trie.insert(&lpm_trie::Key::new(bits, address.octets()), 1, 0).expect("insert");
            }
        }
    }

    pub(crate) fn slots(&mut self, owner: impl Fn(u32) -> Option<Owner>) {
        let mut slots = self.array::<Slot>(map::SLOTS);
        for slot in 0..map::SLOTS_CAPACITY {
            slots.set(slot, owner(slot).map_or(Slot::DEAD, Slot::live), 0).expect("set");
        }
    }

    /// One run over one frame of at least 14 octets (the kernel takes no shorter one).
    pub(crate) fn run(&mut self, frame: &[u8]) -> u32 {
        self.repeat(frame, 1).0
    }

    /// The verdict, and the frame as the program leaves it.
    pub(crate) fn run_for_frame(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len().max(64)];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = self.xdp().test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Forgets what every bucket holds, here and on the host.
    pub(crate) fn forget_pace(&mut self, setup: &Setup) {
        let mut buckets = self.array::<u64>(map::BUCKETS);
        for (bucket, _) in std::mem::take(&mut *setup.due.borrow_mut()) {
            buckets.set(bucket, 0, 0).expect("set");
        }
    }

    /// The verdict, and the kernel's mean time a run.
    pub(crate) fn repeat(&mut self, frame: &[u8], repeat: u32) -> (u32, Duration) {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = self.xdp().test_run(options).expect("test run");
        (result.return_value, result.duration)
    }

    /// One counter, summed over the CPUs, of the frames that [`Self::run`] runs.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        match counter.place_in_row() {
            Some(place) => self.row(QUEUE).iter().map(|row| row[place]).sum(),
            None => {
                let counters = self.ebpf.map(map::COUNTERS).expect("in the object");
                let counters: PerCpuArray<_, u64> = counters.try_into().expect("per-CPU array");
                counters.get(&counter.index(), 0).expect("in range").iter().sum()
            }
        }
    }

    /// What each CPU counted of a queue's frames.
    pub(crate) fn row(&self, queue: u32) -> aya::maps::PerCpuValues<Row> {
        let rows = self.ebpf.map(map::STEERING).expect("in the object");
        let rows: PerCpuArray<_, Row> = rows.try_into().expect("per-CPU array");
        rows.get(&map::steering_row(queue), 0).expect("in range")
    }

    /// All counters, summed over the CPUs.
    pub(crate) fn counters(&self) -> Vec<u64> {
        let row = self.row(QUEUE);
        let count = |counter: &Counter| match counter.place_in_row() {
            Some(place) => row.iter().map(|row| row[place]).sum(),
            None => self.counter(*counter),
        };
        Counter::ALL.iter().map(count).collect()
    }

    pub(crate) fn samples(&mut self) -> Vec<Sample> {
        let ring = self.ebpf.map_mut(map::SAMPLES).expect("in the object");
        let mut ring: RingBuf<_> = ring.try_into().expect("ring buffer");
        let mut samples = Vec::new();
        while let Some(record) = ring.next() {
            samples.push(Sample::read(&record).expect("a whole sample"));
        }
        samples
    }
}

/// Which counters moved between two readings, and by how much.
pub(crate) fn moved(before: &[u64], after: &[u64]) -> Vec<(Counter, u64)> {
    Counter::ALL
        .iter()
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| before != after)
        .map(|(counter, (before, after))| (*counter, after - before))
        .collect()
}

// === impl Setup: the model on the host ===

impl Setup {
    fn lookup(&self, list: &[(IpAddr, u8)], family: fn(&IpAddr) -> bool) -> Lookup {
        match list.iter().any(|(address, _)| family(address)) {
            false => Lookup::Nowhere,
            true if self.in_tries => Lookup::Trie,
            true => Lookup::Words,
        }
    }

    fn add_listener(&self, port: &mut Port, index: usize, listener: &SocketAddr) {
        let number = index as u8 + 1;
        match listener.ip() {
            IpAddr::V4(address) if address.is_unspecified() => port.any_v4 = number,
            IpAddr::V6(address) if address.is_unspecified() => port.any_v6 = number,
            _ => port.by_address = 1,
        }
    }
}

impl Keys for Setup {
    fn local_key(&self, config_id: u8) -> Option<&LocalKey> {
        self.keys.local_key(config_id)
    }
}

impl Lists for Setup {
    fn allows(&self, source: &Address) -> bool {
        self.allow.iter().any(|prefix| covers(*prefix, source))
    }

    fn denies(&self, source: &Address) -> bool {
        self.deny.iter().any(|prefix| covers(*prefix, source))
    }
}

impl Listeners for Setup {
    fn port(&self, port: u16) -> Port {
        let mut entry = Port::default();
        for (index, listener) in self.listeners.iter().enumerate() {
            if listener.port() == port {
                self.add_listener(&mut entry, index, listener);
            }
        }
        entry
    }

    fn address(&self, key: &AddressKey) -> Option<u8> {
        let at = self.listeners.iter().position(|listener| AddressKey::from(*listener) == *key)?;
        Some(at as u8 + 1)
    }
}

impl Queues for Setup {
    fn queue(&self) -> u32 {
        QUEUE
    }

    fn owner_of_queue(&self) -> Queue {
        self.queue
    }

    fn is_live(&self, owner: Owner) -> bool {
        self.live.contains(&owner)
    }
}

impl Buckets for Setup {
    /// Time stands still on the host: a test sets a pace that the kernel's clock does not reach either.
    fn now(&self) -> u64 {
        0
    }

    fn due(&self, bucket: u32) -> u64 {
        self.due.borrow().get(&bucket).copied().unwrap_or(0)
    }

    fn set_due(&self, bucket: u32, due: u64) {
        self.due.borrow_mut().insert(bucket, due);
    }
}

impl Tables for Setup {
    fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Prefix match bit by bit, independent of any trie.
fn covers((prefix, bits): (IpAddr, u8), source: &Address) -> bool {
    let (prefix, source): (Vec<u8>, Vec<u8>) = match (prefix, source) {
        (IpAddr::V4(prefix), Address::V4(source)) => (prefix.octets().into(), source.to_vec()),
        (IpAddr::V6(prefix), Address::V6(source)) => (prefix.octets().into(), source.to_vec()),
        _ => return false,
    };
    (0..usize::from(bits)).all(|bit| {
        let (octet, shift) = (bit / 8, 7 - bit % 8);
        prefix[octet] >> shift & 1 == source[octet] >> shift & 1
    })
}
