//! spooky
