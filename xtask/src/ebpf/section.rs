//! The sections of an eBPF object that decide what it does. Imports `std` only.

use std::collections::BTreeMap;

/// Name and content of every section that the kernel or the loader reads: code, relocations, maps, licence, layout.
/// Debug information, symbol names and BTF may differ between two equal programs. `None`: not a 64-bit
/// little-endian ELF file.
pub(super) fn code_sections(elf: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let u16_at =
        |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let u32_at =
        |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) as usize);
    let u64_at =
        |at: usize| usize::try_from(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?)).ok();
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) = (u64_at(0x28)?, u16_at(0x3a)?, u16_at(0x3c)?, u16_at(0x3e)?);
    let content = |index: usize| {
        let header = table + index * size;
        let start = u64_at(header + 0x18)?;
        elf.get(start..start + u64_at(header + 0x20)?)
    };
    let names = content(names)?;
    let mut sections = BTreeMap::new();
    for index in 1..count {
        let name = names.get(u32_at(table + index * size)?..)?;
        let name = String::from_utf8_lossy(name.split(|octet| *octet == 0).next()?).into_owned();
        if matches!(
            name.as_str(),
            ".text" | "xdp" | "sk_reuseport" | "maps" | "license" | ".rodata.layout"
        ) {
            sections.insert(name, content(index)?.to_vec());
        }
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn the_committed_object_has_its_code() {
        let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(super::super::OBJECT);
        let sections = code_sections(&fs::read(&object).expect("read")).expect("ELF");
        for name in ["xdp", "sk_reuseport", "maps", "license", ".rodata.layout"] {
            assert!(sections.get(name).is_some_and(|content| !content.is_empty()), "{name}");
        }
        assert_eq!(code_sections(b"not an object"), None);
    }
}
