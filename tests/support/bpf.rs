//! The eBPF maps that a running daemon holds, found through its file descriptors: other daemons on the machine have maps
//! of the same names. For tests that spoil a map behind the control plane's back.

use std::fs;

use aya::Pod;
use aya::maps::{Array, Map, MapData};

/// The array map `name` of process `id`.
///
/// # Panics
/// When the process holds no such map.
pub fn array<V: Pod>(id: u32, name: &str) -> Array<MapData, V> {
    let data = map_ids(id)
        .into_iter()
        .filter_map(|map| MapData::from_id(map).ok())
        .find(|data| data.info().is_ok_and(|info| info.name_as_str() == Some(name)));
    let data = data.unwrap_or_else(|| panic!("process {id} holds no map {name}"));
    let map = Map::from_map_data(data).expect("aya knows the map's type");
    Array::try_from(map).unwrap_or_else(|error| panic!("map {name}: {error}"))
}

/// Map ids in `/proc/ID/fdinfo` (bpf_map_show_fdinfo in the kernel's kernel/bpf/syscall.c).
fn map_ids(id: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{id}/fdinfo")) else { return Vec::new() };
    let texts = entries.filter_map(Result::ok).filter_map(|e| fs::read_to_string(e.path()).ok());
    let ids = texts.filter_map(|text| {
        text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())
    });
    ids.collect()
}
