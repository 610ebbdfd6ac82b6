//! What becomes of a frame at the XDP hook, and the way it comes to that: the whole ingress decision, pure, over a
//! [`Cursor`] and [`Tables`]. The kernel binds it to maps, tests to plain values. Must not know aya or pointers.
//!
//! Rule: what is not ours or not understood passes; a drop needs a rule of the operator that the frame itself proves, or
//! one by which user space would refuse it as well, whatever connections it has.

use crate::{
    access::{self, Lists},
    cid::Owner,
    counter::Counter,
    cursor::Cursor,
    early,
    frame::{self, Opaque, Tuple},
    invariant::{self, Form, Kind, Malformed},
    map::{AddressKey, Port, Queue, Settings},
    pace::{self, Pace},
    steer::{self, Keys, Unknown, Whose},
};

/// The verdict on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the host's stack, counted.
    Pass(Counter),
    /// Refused by rule.
    Drop(DropReason, Tuple),
    /// Of a version we do not speak, to be answered with Version Negotiation; to the stack when that cannot be done.
    Answer,
    /// There is an attack: [`crate::guard`] goes on.
    Guard,
    /// To the AF_XDP socket of the receive queue it came in by; to the stack when there is none.
    Redirect(u32, Redirected),
}

/// Why a frame goes to the AF_XDP socket of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirected {
    /// Its connection ID names the socket's owner.
    Owner,
    /// It opens a flow that stays on the queue.
    NewFlow,
}

/// Which rule refused a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The source is on the deny list and not on the allow list.
    Denied = 1,
    /// The default is to deny, and the source is on no list.
    NotAllowed = 2,
    /// A long header that contradicts itself or its version.
    Malformed = 3,
    /// It would open a connection, and is shorter than that takes.
    TooShort = 4,
    /// It would open a connection, from a port of a service.
    SourcePort = 5,
    /// Another kind of packet than an Initial, under an ID that we never issue.
    NotInitial = 6,
    /// More packets that open connections than its prefix has a right to.
    Pace = 7,
    /// More packets of versions that we do not speak than are answered.
    Versions = 8,
    /// Under attack: Handshake, Retry or Version Negotiation with an ID that is not ours.
    UnknownLong = 9,
    /// Under attack: a short header with an ID that is not ours.
    UnknownShort = 10,
    /// Under attack: an ID of ours whose worker and generation are not live.
    OwnerGone = 11,
    /// Under attack: it would open a connection without a token of ours, beyond the share of those.
    NoToken = 12,
}

/// Everything the decision looks up.
pub trait Tables: Keys + Lists + Listeners + Queues + Buckets {
    /// The settings in force.
    fn settings(&self) -> &Settings;
}

/// What is known of workers and receive queues.
pub trait Queues {
    /// The receive queue the frame came in by.
    fn queue(&self) -> u32;
    /// Who owns the AF_XDP socket of that queue.
    fn owner_of_queue(&self) -> Queue;
    /// Whether this worker and generation are live.
    fn is_live(&self, owner: Owner) -> bool;
}

/// When the next packet of a bucket is due, see [`crate::pace`].
pub trait Buckets {
    /// Nanoseconds of a clock that only goes forward.
    fn now(&self) -> u64;
    /// What a bucket holds, 0 at first.
    fn due(&self, bucket: u32) -> u64;
    /// What it holds from now on.
    fn set_due(&self, bucket: u32, due: u64);
}

/// How a destination is found to be one of our listeners.
pub trait Listeners {
    /// What is known of a UDP port; all zero for a port that is not ours.
    fn port(&self, port: u16) -> Port;
    /// The listener number (index + 1) of an address and port, where [`Port::by_address`] is set.
    fn address(&self, key: &AddressKey) -> Option<u8>;
}

/// Decides for one Ethernet frame. Unless the frame was not read so far, the cursor stands at the UDP payload then.
#[inline(always)]
pub fn ingress<C: Cursor + Clone, T: Tables>(cursor: &mut C, tables: &T) -> Verdict {
    let tuple = match frame::udp(cursor) {
        Ok(tuple) => tuple,
        Err(opaque) => return Verdict::Pass(opaque.counter()),
    };
    if cursor.meet().is_none() {
        return Verdict::Pass(Counter::XdpTruncated);
    }
    if listener(tables, &tuple.destination, tuple.destination_port).is_none() {
        return Verdict::Pass(Counter::XdpOtherPort);
    }
    let settings = tables.settings();
    if let Some(reason) = access::refuse(&tuple.source, tables, settings.default_deny != 0) {
        return Verdict::Drop(reason, tuple);
    }
    let mut rest = cursor.clone();
    let payload_len = usize::from(tuple.payload_len);
    let header = match invariant::read(&mut rest, payload_len) {
        Ok(header) => header,
        Err(Malformed::Truncated) if settings.early != 0 => {
            return Verdict::Drop(DropReason::Malformed, tuple);
        }
        Err(_) => return Verdict::Pass(Counter::XdpNotQuic),
    };
    if settings.early != 0
        && let Some(reason) = early::refuse(&header, &mut rest, payload_len, tuple.source_port)
    {
        return Verdict::Drop(reason.into(), tuple);
    }
    if settings.attack != 0 {
        return Verdict::Guard;
    }
    match steer::whose(&header, tables) {
        // A socket takes the frames of its own queue only: what came in by another goes through the stack, where the
        // reuseport program finds the owner's other socket.
        Whose::Owner(owner) if tables.owner_of_queue().is_of(owner) => {
            Verdict::Redirect(tables.queue(), Redirected::Owner)
        }
        Whose::Owner(owner) if tables.is_live(owner) => Verdict::Pass(Counter::XdpOwner),
        Whose::Owner(_) => Verdict::Pass(Counter::XdpOwnerGone),
        Whose::NewFlow => new_flow(&header, &tuple, tables),
        Whose::Unknown(Unknown::Long) => Verdict::Pass(Counter::XdpUnknownLong),
        Whose::Unknown(Unknown::Short) => Verdict::Pass(Counter::XdpUnknownShort),
    }
}

/// A packet with an ID that its client chose.
#[inline(always)]
fn new_flow<T: Tables>(header: &invariant::Header, tuple: &Tuple, tables: &T) -> Verdict {
    let settings = tables.settings();
    if let Some(reason) = may_not_open(header, tuple, settings) {
        return Verdict::Drop(reason, *tuple);
    }
    if settings.new_flows.step_ns != 0
        && !keeps_pace(
            &settings.new_flows,
            pace::bucket(&tuple.source, &settings.placement),
            tables,
        )
    {
        return Verdict::Drop(DropReason::Pace, *tuple);
    }
    welcome(header, tuple, tables)
}

/// Why a packet with an ID that its client chose is refused by every worker, as far as only its place tells.
#[inline(always)]
pub(crate) fn may_not_open(
    header: &invariant::Header,
    tuple: &Tuple,
    settings: &Settings,
) -> Option<DropReason> {
    if settings.early == 0 {
        return None;
    }
    if early::is_service(tuple.source_port) {
        return Some(DropReason::SourcePort);
    }
    (is_other_version(header) && !is_whole(tuple)).then_some(DropReason::TooShort)
}

/// What becomes of a packet with an ID that its client chose, when it may open a connection.
#[inline(always)]
pub(crate) fn welcome<T: Tables>(header: &invariant::Header, tuple: &Tuple, tables: &T) -> Verdict {
    let versions = &tables.settings().versions;
    let service = early::is_service(tuple.source_port);
    if versions.step_ns != 0 && is_other_version(header) && is_whole(tuple) && !service {
        if !keeps_pace(versions, pace::VERSION_BUCKET, tables) {
            return Verdict::Drop(DropReason::Versions, *tuple);
        }
        return Verdict::Answer;
    }
    if stays(header, tables) {
        return Verdict::Redirect(tables.queue(), Redirected::NewFlow);
    }
    Verdict::Pass(Counter::XdpNewFlow)
}

#[inline(always)]
const fn is_other_version(header: &invariant::Header) -> bool {
    matches!(header.form, Form::Long { kind: Kind::OtherVersion, .. })
}

#[inline(always)]
const fn is_whole(tuple: &Tuple) -> bool {
    tuple.payload_len as usize >= early::INITIAL_DATAGRAM_MIN
}

/// Whether one more may pass now; if so, it has.
#[inline(always)]
pub(crate) fn keeps_pace<T: Tables>(pace: &Pace, bucket: u32, tables: &T) -> bool {
    match pace.take(tables.due(bucket), tables.now()) {
        Some(due) => {
            tables.set_due(bucket, due);
            true
        }
        None => false,
    }
}

/// Whether a new flow stays on the queue it came in by.
#[inline(always)]
fn stays<T: Tables>(header: &invariant::Header, tables: &T) -> bool {
    let queue = tables.owner_of_queue();
    queue != Queue::NOBODYS && queue.keeps(steer::slot(header, &tables.settings().placement))
}

/// The index of the listener that a datagram to this address and port reaches, 0..=15: bound to the address, or to
/// the family's wildcard. `None`: not ours.
#[inline(always)]
#[must_use]
pub fn listener<T: Listeners>(tables: &T, address: &frame::Address, port: u16) -> Option<u8> {
    let entry = tables.port(port);
    let any = match address {
        frame::Address::V4(_) => entry.any_v4,
        frame::Address::V6(_) => entry.any_v6,
    };
    // The kernel prefers a socket bound to the address over one bound to the wildcard; so does this.
    let number = if entry.by_address == 0 {
        any
    } else {
        tables.address(&AddressKey::new(address, port)).unwrap_or(any)
    };
    number.checked_sub(1)
}

impl Opaque {
    /// The counter of a frame that passes because it was not read down to UDP.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::Truncated => Counter::XdpTruncated,
            Self::NotIp => Counter::XdpNotIp,
            Self::NotUdp => Counter::XdpNotUdp,
            Self::Fragment => Counter::XdpFragment,
            Self::Malformed => Counter::XdpMalformed,
        }
    }
}

impl From<early::Reason> for DropReason {
    #[inline(always)]
    fn from(reason: early::Reason) -> Self {
        match reason {
            early::Reason::Malformed => Self::Malformed,
            early::Reason::TooShort => Self::TooShort,
            early::Reason::SourcePort => Self::SourcePort,
            early::Reason::NotInitial => Self::NotInitial,
        }
    }
}

impl DropReason {
    /// The counter of a frame dropped for this reason.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::Denied => Counter::XdpDenied,
            Self::NotAllowed => Counter::XdpNotAllowed,
            Self::Malformed => Counter::XdpDropMalformed,
            Self::TooShort => Counter::XdpTooShort,
            Self::SourcePort => Counter::XdpSourcePort,
            Self::NotInitial => Counter::XdpNotInitial,
            Self::Pace => Counter::XdpPace,
            Self::Versions => Counter::XdpVersions,
            Self::UnknownLong => Counter::XdpDropUnknownLong,
            Self::UnknownShort => Counter::XdpDropUnknownShort,
            Self::OwnerGone => Counter::XdpDropOwnerGone,
            Self::NoToken => Counter::XdpNoToken,
        }
    }

    /// The reason with this number in a [`crate::sample::Sample`].
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Denied),
            2 => Some(Self::NotAllowed),
            3 => Some(Self::Malformed),
            4 => Some(Self::TooShort),
            5 => Some(Self::SourcePort),
            6 => Some(Self::NotInitial),
            7 => Some(Self::Pace),
            8 => Some(Self::Versions),
            9 => Some(Self::UnknownLong),
            10 => Some(Self::UnknownShort),
            11 => Some(Self::OwnerGone),
            12 => Some(Self::NoToken),
            _ => None,
        }
    }
}

impl Verdict {
    /// The one counter that this verdict adds to; for one that leads on, if nothing is there.
    #[inline(always)]
    #[must_use]
    pub const fn counter(&self) -> Counter {
        match self {
            Self::Pass(counter) => *counter,
            Self::Drop(reason, _) => reason.counter(),
            Self::Answer => Counter::XdpAnswered,
            // Never seen: the program is there before the first frame.
            Self::Guard => Counter::XdpNewFlow,
            Self::Redirect(_, Redirected::Owner) => Counter::XdpRedirected,
            Self::Redirect(_, Redirected::NewFlow) => Counter::XdpRedirectedNew,
        }
    }
}

impl Redirected {
    /// The counter of a frame that went to the stack after all, for want of a socket.
    #[inline(always)]
    #[must_use]
    pub const fn passed(self) -> Counter {
        match self {
            Self::Owner => Counter::XdpOwner,
            Self::NewFlow => Counter::XdpNewFlow,
        }
    }
}
