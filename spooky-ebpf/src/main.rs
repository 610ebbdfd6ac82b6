//! Entry points of the kernel programs. Nothing happens here but the call into the pipeline.
//!
//! Imports aya-ebpf and spooky-common only. Every decision lives in spooky-common, where the host tests it; this
//! crate binds it to packets and maps.
#![no_std]
#![no_main]

mod answer;
mod capture;
mod count;
mod cursor;
mod lists;
mod maps;
mod reuseport;
mod sample;
mod xdp;

use aya_ebpf::{
    macros::{sk_reuseport, xdp as xdp_program},
    programs::{SkReuseportContext, XdpContext},
};

/// Every frame of the interface: filter, count, pass on.
#[xdp_program]
pub fn spooky_xdp(context: XdpContext) -> u32 {
    xdp::ingress(&context)
}

/// What the program above goes on to while there is an attack: drop what belongs to no connection.
#[xdp_program]
pub fn spooky_guard(context: XdpContext) -> u32 {
    xdp::guard(&context)
}

/// What both go on to for a version that nobody speaks: answer it.
#[xdp_program]
pub fn spooky_answer(context: XdpContext) -> u32 {
    answer::version_negotiation(&context)
}

/// Every datagram to a group of our sockets: choose the socket.
#[sk_reuseport]
pub fn spooky_reuseport(context: SkReuseportContext) -> u32 {
    reuseport::select(&context)
}

/// Version of maps and layout, read by user space before it attaches anything.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.layout")]
static LAYOUT: u32 = spooky_common::LAYOUT_VERSION;

// The helpers used here are for GPL-compatible programs.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// There is no panic path. Should a change bring one in, this endless loop makes the verifier refuse the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
