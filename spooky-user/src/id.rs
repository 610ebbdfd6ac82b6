//! Small numbers that both planes and telemetry use to name configured things. Imports nothing of the crate.

use std::fmt;

macro_rules! index_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u16);

        impl $name {
            /// The position in the list that the snapshot keeps.
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index_newtype! {
    /// A worker thread; also the worker number inside connection IDs (0..=255).
    WorkerId
}
index_newtype! {
    /// A listener, by the place it has from its opening until its last socket is closed: 0..=15, also in the kernel's maps.
    ListenerId
}
index_newtype! {
    /// A configured route, by its place in the file.
    RouteId
}
index_newtype! {
    /// A configured upstream, by its place in the file.
    ClusterId
}

/// Names a connection in its worker's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// Place in the table.
    pub index: u32,
    /// Tells the connections apart that have had this place.
    pub serial: u32,
}
