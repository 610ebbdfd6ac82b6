//! Every raw system call that no library wraps, a man-page link each. May import nothing of the crate.
