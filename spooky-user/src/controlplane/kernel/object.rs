//! The embedded object: parse, create its maps, verify its programs, check that it speaks our layout. Must not attach
//! or fill anything but the settings.

use std::collections::BTreeSet;

use aya::{
    Ebpf, Pod,
    maps::{
        Array, HashMap, MapData, PerCpuArray, ProgramArray, ReusePortSockArray, RingBuf, XskMap,
    },
    programs::{SkReuseport, Xdp},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use spooky_common::{
    LAYOUT_VERSION,
    cid::LocalKey,
    counter::Row,
    map::{self, AddressKey, Key, Port, Queue, Settings, Slot},
    prefix::{ALLOW_WORDS, DENY_WORDS},
};

use super::{
    KernelError, Mode,
    lists::{List, WordsMap},
};

/// The object that `cargo xtask build-ebpf` wrote, aligned as the ELF parser wants it.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/spooky.bpf.o"));

/// The programs and maps, loaded. Everything closes on drop.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) ports: Array<MapData, Port>,
    pub(super) addresses: HashMap<MapData, AddressKey, u32>,
    pub(super) sockets: ReusePortSockArray<MapData>,
    pub(super) slots: Array<MapData, Slot>,
    pub(super) queues: Array<MapData, Queue>,
    pub(super) owners: Array<MapData, u32>,
    pub(super) xsks: XskMap<MapData>,
    pub(super) keys: Array<MapData, Key>,
    pub(super) deny_v4: List<[u8; 4], DENY_WORDS>,
    pub(super) deny_v6: List<[u8; 16], DENY_WORDS>,
    pub(super) allow_v4: List<[u8; 4], ALLOW_WORDS>,
    pub(super) allow_v6: List<[u8; 16], ALLOW_WORDS>,
    pub(super) settings: Array<MapData, Settings>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) steering: PerCpuArray<MapData, Row>,
    pub(super) samples: RingBuf<MapData>,
    pub(super) captures: RingBuf<MapData>,
    /// Held open.
    _further: Option<ProgramArray<MapData>>,
    /// Ports that were ever written: all others hold zero since the map was made.
    pub(super) ports_written: BTreeSet<u16>,
    /// Places of `OWNERS` that were ever written, likewise.
    pub(super) owners_written: BTreeSet<u32>,
}

// === impl Loaded ===

impl Loaded {
    /// Loads the reuseport program, and the XDP program when the mode needs it.
    pub(super) fn load(mode: Mode, sample_every: u32) -> Result<Self, KernelError> {
        let mut ebpf = parse()?;
        let mut programs = None;
        // Programs first: they hold the maps by themselves once loaded.
        reuseport(&mut ebpf)?
            .load()
            .map_err(|error| KernelError::from_program(map::PROGRAM_REUSEPORT, error))?;
        if mode == Mode::Xdp {
            xdp(&mut ebpf)?
                .load()
                .map_err(|error| KernelError::from_program(map::PROGRAM_XDP, error))?;
            programs = Some(further(&mut ebpf)?);
        }
        let mut loaded = Self {
            ports: take(&mut ebpf, map::PORTS)?,
            addresses: take(&mut ebpf, map::ADDRESSES)?,
            sockets: take(&mut ebpf, map::SOCKETS)?,
            slots: take(&mut ebpf, map::SLOTS)?,
            queues: take(&mut ebpf, map::QUEUES)?,
            owners: take(&mut ebpf, map::OWNERS)?,
            xsks: take(&mut ebpf, map::XSKS)?,
            keys: take(&mut ebpf, map::KEYS)?,
            deny_v4: List::v4(
                take(&mut ebpf, map::DENY_V4)?,
                (map::DENY_V4, map::DENY_CAPACITY),
                words(&mut ebpf, map::DENY_V4_WORDS, mode)?,
            ),
            deny_v6: List::v6(
                take(&mut ebpf, map::DENY_V6)?,
                (map::DENY_V6, map::DENY_CAPACITY),
                words(&mut ebpf, map::DENY_V6_WORDS, mode)?,
            ),
            allow_v4: List::v4(
                take(&mut ebpf, map::ALLOW_V4)?,
                (map::ALLOW_V4, map::ALLOW_CAPACITY),
                words(&mut ebpf, map::ALLOW_V4_WORDS, mode)?,
            ),
            allow_v6: List::v6(
                take(&mut ebpf, map::ALLOW_V6)?,
                (map::ALLOW_V6, map::ALLOW_CAPACITY),
                words(&mut ebpf, map::ALLOW_V6_WORDS, mode)?,
            ),
            settings: take(&mut ebpf, map::SETTINGS)?,
            counters: take(&mut ebpf, map::COUNTERS)?,
            steering: take(&mut ebpf, map::STEERING)?,
            samples: take(&mut ebpf, map::SAMPLES)?,
            captures: take(&mut ebpf, map::CAPTURES)?,
            _further: programs,
            ports_written: BTreeSet::new(),
            owners_written: BTreeSet::new(),
            ebpf,
        };
        let settings = Settings { placement: random_key()?, sample_every, ..Settings::default() };
        loaded
            .settings
            .set(0, settings, 0)
            .map_err(|error| KernelError::map(map::SETTINGS, error))?;
        Ok(loaded)
    }
}

/// Parses the object, makes its maps, and checks that it speaks our layout.
pub(super) fn parse() -> Result<Ebpf, KernelError> {
    let ebpf = Ebpf::load(OBJECT).map_err(KernelError::from_load)?;
    check_layout(&ebpf)?;
    Ok(ebpf)
}

pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let program = ebpf.program_mut(map::PROGRAM_XDP).ok_or_else(|| lacks(map::PROGRAM_XDP))?;
    program.try_into().map_err(|error| KernelError::from_program(map::PROGRAM_XDP, error))
}

/// Loads the programs that the XDP program goes on to, and puts them where it finds them. The kernel empties the array when
/// nobody holds it open.
pub(super) fn further(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, KernelError> {
    let mut programs: ProgramArray<MapData> = take(ebpf, map::PROGRAMS)?;
    for (name, place) in
        [(map::PROGRAM_ANSWER, map::ANSWER_PLACE), (map::PROGRAM_GUARD, map::GUARD_PLACE)]
    {
        let failed = |error| KernelError::from_program(name, error);
        let program = ebpf.program_mut(name).ok_or_else(|| lacks(name))?;
        let program: &mut Xdp = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(failed)?;
        programs.set(place, &fd, 0).map_err(|error| KernelError::map(map::PROGRAMS, error))?;
    }
    Ok(programs)
}

pub(super) fn reuseport(ebpf: &mut Ebpf) -> Result<&mut SkReuseport, KernelError> {
    let program =
        ebpf.program_mut(map::PROGRAM_REUSEPORT).ok_or_else(|| lacks(map::PROGRAM_REUSEPORT))?;
    program.try_into().map_err(|error| KernelError::from_program(map::PROGRAM_REUSEPORT, error))
}

fn check_layout(ebpf: &Ebpf) -> Result<(), KernelError> {
    let section = ebpf.map(map::LAYOUT).ok_or_else(|| lacks(map::LAYOUT))?;
    let layout: Array<&MapData, u32> =
        section.try_into().map_err(|error| KernelError::map(map::LAYOUT, error))?;
    let object = layout.get(&0, 0).map_err(|error| KernelError::map(map::LAYOUT, error))?;
    if object != LAYOUT_VERSION {
        return Err(KernelError::Layout { object, expected: LAYOUT_VERSION });
    }
    Ok(())
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| lacks(name))?;
    M::try_from(map).map_err(|error| KernelError::map(name, error))
}

/// Writes `value` where the map holds another one; 1 if so.
pub(super) fn differ<V: Pod + PartialEq>(
    array: &mut Array<MapData, V>,
    name: &'static str,
    index: u32,
    value: V,
) -> Result<usize, KernelError> {
    let failed = |error| KernelError::map(name, error);
    if array.get(&index, 0).map_err(failed)? == value {
        return Ok(0);
    }
    array.set(index, value, 0).map_err(failed)?;
    Ok(1)
}

/// The words of a list. Without the XDP program nobody reads them: the map is closed, and its memory is free.
fn words<const N: usize>(
    ebpf: &mut Ebpf,
    name: &'static str,
    mode: Mode,
) -> Result<Option<(WordsMap<N>, &'static str)>, KernelError> {
    let map = take(ebpf, name)?;
    Ok((mode == Mode::Xdp).then_some((map, name)))
}

pub(super) fn lacks(name: &str) -> KernelError {
    KernelError::Object(format!("it lacks {name}"))
}

/// The placement hash's secret: new at every load, so that nobody can learn it over time.
fn random_key() -> Result<LocalKey, KernelError> {
    let mut octets = [[0; 8]; 2];
    for half in &mut octets {
        if SystemRandom::new().fill(half).is_err() {
            return Err(KernelError::Random);
        }
    }
    let [k0, k1] = octets.map(u64::from_ne_bytes);
    Ok(LocalKey { k0, k1 })
}
