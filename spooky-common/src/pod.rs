//! `aya::Pod` for the map keys and values: the promise that any bit pattern of them may be copied from and to a map.
//! The only module of this crate with `unsafe`; each promise has its size asserted, so that no padding can hide.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

use crate::{
    cid::LocalKey,
    map::{AddressKey, Key, Port, Queue, Settings, Slot},
    sample::Sample,
};

macro_rules! pod {
    ($($type:ty = $($field:literal)+;)*) => {$(
        const _: () = assert!(size_of::<$type>() == 0 $(+ $field)+, "padding in a map type");
        // SAFETY: `repr(C)` or `repr(transparent)`, integers and octets only, and by the assertion above the sizes of
        // the fields add up to the size of the whole: no padding, every bit pattern valid.
        unsafe impl aya::Pod for $type {}
    )*};
}

pod! {
    LocalKey = 8 8;
    Port = 1 1 1 1;
    AddressKey = 16 2 2;
    Slot = 4;
    Queue = 4;
    Key = 16 4 4;
    Settings = 16 4 4 4 4 4 4 16 16 16 16 8;
    Sample = 16 2 2 2 1 1 16 8;
}
