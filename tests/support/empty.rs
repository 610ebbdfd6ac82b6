//! The least an XDP program can do, `return XDP_PASS`, as an ELF object made here. Its time is the kernel's loop around
//! every program; and a veth takes what the other side sends from XDP only if it has a program, too.

use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp, XdpMode},
};

const NAME: &str = "empty";
/// `r0 = 2` (`XDP_PASS`), `exit`.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

const HEADER_LEN: usize = 64;
/// Names of sections and symbols, one table for both: offsets 1 `xdp`, 5 `empty`, 11 `strings`, 19 `symbols`.
const STRINGS: &[u8] = b"\0xdp\0empty\0strings\0symbols\0";

/// The program, loaded. What it is attached to it leaves when it is dropped.
#[derive(Debug)]
pub struct Empty(Ebpf);

// === impl Empty ===

impl Empty {
    /// Loads it.
    ///
    /// # Panics
    /// When the kernel refuses it; ask [`crate::privilege::kernel`] first.
    #[must_use]
    pub fn load() -> Self {
        let mut empty = Self(Ebpf::load(&object()).expect("two instructions and their names"));
        empty.program().load().expect("the verifier accepts two instructions");
        empty
    }

    /// Attaches it to an interface of this thread's namespace, in the driver.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn attach(&mut self, interface: &str) {
        self.program().attach(interface, XdpMode::Driver).expect("the driver takes a program");
    }

    /// Mean nanoseconds of a run over a frame.
    ///
    /// # Panics
    /// When the kernel does not run it.
    pub fn nanoseconds(&mut self, frame: &[u8], repeat: u32) -> f64 {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = self.program().test_run(options).expect("test run");
        result.duration.as_nanos() as f64
    }

    fn program(&mut self) -> &mut Xdp {
        self.0.program_mut(NAME).expect("in the object").try_into().expect("XDP")
    }
}

/// A relocatable 64-bit little-endian ELF file for BPF: code, strings, symbols, section headers.
fn object() -> Vec<u8> {
    let symbols = [symbol(0, 0, 0, 0), symbol(5, 0x12, 1, CODE.len() as u64)].concat();
    let code_at = HEADER_LEN;
    let strings_at = code_at + CODE.len();
    let symbols_at = (strings_at + STRINGS.len()).next_multiple_of(8);
    let headers_at = symbols_at + symbols.len();
    let mut file = header(headers_at as u64, 4, 2);
    file.extend(CODE);
    file.extend(STRINGS);
    file.resize(symbols_at, 0);
    file.extend(&symbols);
    // Null; PROGBITS, allocated and executable; STRTAB; SYMTAB with the strings of section 2 and one local symbol.
    file.extend(section(0, 0, 0, (0, 0), (0, 0), 0));
    file.extend(section(1, 1, 6, (code_at, CODE.len()), (0, 0), 0));
    file.extend(section(11, 3, 0, (strings_at, STRINGS.len()), (0, 0), 0));
    file.extend(section(19, 2, 0, (symbols_at, symbols.len()), (2, 1), 24));
    file
}

fn header(headers_at: u64, sections: u16, names: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(1_u16.to_le_bytes()); // ET_REL
    file.extend(247_u16.to_le_bytes()); // EM_BPF
    file.extend(1_u32.to_le_bytes());
    file.extend([0; 16]); // no entry point, no segments
    file.extend(headers_at.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER_LEN as u16, 0, 0, 64, sections, names] {
        file.extend(half.to_le_bytes());
    }
    file
}

fn section(
    name: u32,
    kind: u32,
    flags: u64,
    (at, len): (usize, usize),
    (link, info): (u32, u32),
    entry: u64,
) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(name.to_le_bytes());
    header.extend(kind.to_le_bytes());
    header.extend(flags.to_le_bytes());
    header.extend(0_u64.to_le_bytes());
    header.extend((at as u64).to_le_bytes());
    header.extend((len as u64).to_le_bytes());
    header.extend(link.to_le_bytes());
    header.extend(info.to_le_bytes());
    header.extend(8_u64.to_le_bytes());
    header.extend(entry.to_le_bytes());
    header
}

fn symbol(name: u32, info: u8, section: u16, size: u64) -> Vec<u8> {
    let mut symbol = Vec::new();
    symbol.extend(name.to_le_bytes());
    symbol.extend([info, 0]);
    symbol.extend(section.to_le_bytes());
    symbol.extend(0_u64.to_le_bytes());
    symbol.extend(size.to_le_bytes());
    symbol
}
