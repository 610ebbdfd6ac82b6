//! Socket choice: the decision of spooky-common carried out over the socket array and the slot table. Whatever goes
//! wrong, the datagram reaches some socket of the group: user space hands strays to their owner.
//!
//! For a GRO train the kernel calls this for the first segment only.

use aya_ebpf::{bindings::sk_action::SK_PASS, programs::SkReuseportContext};
use spooky_common::{
    cid::Owner,
    counter::Counter,
    cursor::Cursor as _,
    frame::Address,
    invariant, map,
    steer::{self, Steer, Unknown},
    verdict::{self, Tables as _},
};

use crate::{
    count,
    cursor::Datagram,
    maps::{Maps, SLOTS, SOCKETS},
};

/// `ETH_P_IP` as it stands in the context: network order.
const PROTOCOL_IPV4: u32 = 0x0800_u16.to_be() as u32;
/// Offset of the destination address in an IPv4 header.
const DESTINATION_V4: u32 = 16;
/// Offset of the destination address in an IPv6 header.
const DESTINATION_V6: u32 = 24;

/// Selects, counts once, and always passes: an unselected datagram goes by the kernel's own hash.
#[inline(always)]
pub fn select(context: &SkReuseportContext) -> u32 {
    count::add(choose(context).unwrap_or(Counter::ReuseportOtherPort));
    SK_PASS
}

/// The socket chosen is selected on the way; returned is how it went. `None`: not a listener of ours.
#[inline(always)]
fn choose(context: &SkReuseportContext) -> Option<Counter> {
    let maps = Maps::open(0)?;
    let mut datagram = Datagram::new(context);
    let udp: [u8; 8] = datagram.take()?;
    let destination = if context.eth_protocol() == PROTOCOL_IPV4 {
        Address::V4(datagram.network(DESTINATION_V4)?)
    } else {
        Address::V6(datagram.network(DESTINATION_V6)?)
    };
    let port = u16::from_be_bytes([udp[2], udp[3]]);
    let listener = verdict::listener(&maps, &destination, port)?;

    let payload_len = context.len().saturating_sub(udp.len());
    let flow = context.hash() as u8;
    let Ok(header) = invariant::read(&mut datagram, payload_len) else {
        return Some(place(context, listener, flow, Counter::ReuseportNotQuic));
    };
    Some(match steer::steer(&header, &maps, &maps.settings().placement) {
        Steer::Owner(owner) => {
            if to(context, listener, owner) {
                Counter::ReuseportOwner
            } else {
                place(context, listener, flow, Counter::ReuseportOwnerGone)
            }
        }
        Steer::Place(slot) => place(context, listener, slot, Counter::ReuseportNewFlow),
        Steer::Unknown(Unknown::Long) => {
            place(context, listener, flow, Counter::ReuseportUnknownLong)
        }
        Steer::Unknown(Unknown::Short) => {
            place(context, listener, flow, Counter::ReuseportUnknownShort)
        }
    })
}

/// By the slot table; `placed` is the counter when that works.
#[inline(always)]
fn place(context: &SkReuseportContext, listener: u8, slot: u8, placed: Counter) -> Counter {
    match SLOTS.get(u32::from(slot)).and_then(|slot| slot.owner()) {
        None => Counter::ReuseportDeadSlot,
        Some(owner) if to(context, listener, owner) => placed,
        Some(_) => Counter::ReuseportRefused,
    }
}

/// Whether there is a socket of `owner` in this group; if so it is selected.
#[inline(always)]
fn to(context: &SkReuseportContext, listener: u8, owner: Owner) -> bool {
    SOCKETS.select_reuseport(context, map::socket_index(listener, owner)).is_ok()
}
