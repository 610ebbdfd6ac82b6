//! The committed object's shape. Needs no privilege.

use spooky_common::{LAYOUT_VERSION, map};

use crate::rig::OBJECT;

/// Name and content of every section; enough of ELF for that.
fn sections(elf: &[u8]) -> Vec<(String, &[u8])> {
    let number = |at: usize, octets: usize| {
        elf[at..at + octets].iter().rev().fold(0, |sum, octet| sum << 8 | usize::from(*octet))
    };
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "64-bit little-endian ELF");
    let (table, size, count, names) =
        (number(0x28, 8), number(0x3a, 2), number(0x3c, 2), number(0x3e, 2));
    let content = |index: usize| {
        let header = table + index * size;
        // SHT_NOBITS: a size, and nothing in the file.
        if number(header + 4, 4) == 8 {
            return &elf[..0];
        }
        let start = number(header + 0x18, 8);
        &elf[start..start + number(header + 0x20, 8)]
    };
    let names = content(names);
    (1..count)
        .map(|index| {
            let name = &names[number(table + index * size, 4)..];
            let end = name.iter().position(|octet| *octet == 0).expect("an end");
            (String::from_utf8_lossy(&name[..end]).into_owned(), content(index))
        })
        .collect()
}

#[test]
fn has_its_programs_licence_layout_and_btf() {
    assert_eq!(OBJECT.as_ptr() as usize % 8, 0, "aligned for the ELF parser");
    let sections = sections(OBJECT);
    let section =
        |name: &str| sections.iter().find(|(found, _)| found == name).map(|(_, content)| *content);
    for name in ["xdp", "sk_reuseport", "maps", ".BTF"] {
        assert!(section(name).is_some_and(|content| !content.is_empty()), "section {name}");
    }
    assert_eq!(section("license"), Some(&b"Dual MIT/GPL\0"[..]));
    assert_eq!(section(map::LAYOUT), Some(&LAYOUT_VERSION.to_le_bytes()[..]));
    assert_eq!(section(".debug_info"), None, "DWARF is stripped");
    assert!(OBJECT.len() < 256 * 1024, "{} octets", OBJECT.len());
}

#[test]
fn names_every_map_and_program() {
    let names: Vec<_> = sections(OBJECT)
        .into_iter()
        .filter(|(name, _)| name == ".strtab" || name == ".symtab" || name == ".shstrtab")
        .flat_map(|(_, content)| content.split(|octet| *octet == 0))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    for name in [
        map::PROGRAM_XDP,
        map::PROGRAM_REUSEPORT,
        map::PROGRAM_ANSWER,
        map::PROGRAM_GUARD,
        map::PORTS,
        map::ADDRESSES,
        map::SOCKETS,
        map::SLOTS,
        map::QUEUES,
        map::OWNERS,
        map::KEYS,
        map::DENY_V4,
        map::DENY_V6,
        map::ALLOW_V4,
        map::ALLOW_V6,
        map::DENY_V4_WORDS,
        map::DENY_V6_WORDS,
        map::ALLOW_V4_WORDS,
        map::ALLOW_V6_WORDS,
        map::SETTINGS,
        map::BUCKETS,
        map::COUNTERS,
        map::STEERING,
        map::SAMPLES,
        map::PROGRAMS,
        map::XSKS,
    ] {
        // A string table may share ends: SETTINGS can be the end of another name.
        assert!(names.iter().any(|found| found.ends_with(name)), "{name}");
    }
}
