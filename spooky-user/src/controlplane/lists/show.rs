//! What can be asked of the lists: all of it page by page, or what is said of one address. Imports its parent.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::cover::around;
use super::table::{Entry, List, Origin};
use super::{Lists, normal};
use crate::controlplane::config::AccessSource;

/// One line.
#[derive(Clone, Debug)]
pub struct Row {
    /// The list.
    pub list: List,
    /// The network.
    pub prefix: IpNet,
    /// Where it comes from.
    pub origin: Origin,
    /// The file, for [`Origin::File`].
    pub file: Option<PathBuf>,
    /// For dynamic entries.
    pub entry: Option<Arc<Entry>>,
    /// Not a dry run, neither by itself nor by `access.dry_run`.
    pub enforced: bool,
}

/// The line after which a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// A dynamic entry.
    Dynamic(List, IpNet),
    /// So many networks of the source with this number.
    Fixed(usize, usize),
}

impl Lists {
    /// At most `max` lines, dynamic entries first, and where the next page begins.
    #[must_use]
    pub fn page(&self, after: Option<Cursor>, max: usize) -> (Vec<Row>, Option<Cursor>) {
        let dynamic: Box<dyn Iterator<Item = &Arc<Entry>>> = match after {
            None => Box::new(self.table.iter()),
            Some(Cursor::Dynamic(list, prefix)) => Box::new(self.table.after(list, prefix)),
            Some(Cursor::Fixed(..)) => Box::new(std::iter::empty()),
        };
        let mut rows: Vec<Row> = dynamic.take(max).map(|entry| self.dynamic_row(entry)).collect();
        if rows.len() == max {
            let last = rows.last().map(|row| Cursor::Dynamic(row.list, row.prefix));
            return (rows, last);
        }
        let (mut source, mut offset) = match after {
            Some(Cursor::Fixed(source, offset)) => (source, offset),
            _ => (0, 0),
        };
        while let Some(place) = self.fixed.sources.get(source) {
            let networks = place.networks.get(offset..).unwrap_or_default();
            let taken = networks.len().min(max - rows.len());
            rows.extend(networks.iter().take(taken).map(|net| fixed_row(place, *net)));
            if rows.len() == max {
                return (rows, Some(Cursor::Fixed(source, offset + taken)));
            }
            (source, offset) = (source + 1, 0);
        }
        (rows, None)
    }

    /// Every line that holds this address, or network, the allow list first.
    #[must_use]
    pub fn matching(&self, net: IpNet) -> Vec<Row> {
        let net = normal(net);
        let mut rows = Vec::new();
        for list in List::ALL {
            for net in std::iter::once(net).chain(around(net)) {
                rows.extend(self.table.get(list, &net).map(|entry| self.dynamic_row(entry)));
                if let Some((_, source)) = self.fixed.origin(list, &net) {
                    rows.push(fixed_row(source, net));
                }
            }
        }
        rows
    }

    /// Whether an address may connect, by the lists as they are now.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let net = normal(IpNet::from(address));
        let has = |list| {
            let mut nets = std::iter::once(net).chain(around(net));
            let cover = if list == List::Allow { &self.allow } else { &self.deny };
            nets.any(|net| cover.contains(&net) || self.fixed.has(list, &net))
        };
        has(List::Allow) || !(self.fixed.default_deny || has(List::Deny))
    }

    fn dynamic_row(&self, entry: &Arc<Entry>) -> Row {
        let spared = entry.dry_run || self.dry_run && entry.list == List::Deny;
        Row {
            list: entry.list,
            prefix: entry.prefix,
            origin: entry.origin,
            file: None,
            entry: Some(Arc::clone(entry)),
            enforced: !spared,
        }
    }
}

fn fixed_row(source: &AccessSource, prefix: IpNet) -> Row {
    Row {
        list: if source.deny { List::Deny } else { List::Allow },
        prefix,
        origin: if source.file.is_some() { Origin::File } else { Origin::Config },
        file: source.file.clone(),
        entry: None,
        enforced: true,
    }
}

// === impl Cursor ===

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dynamic(list, prefix) => write!(f, "{}/{prefix}", list.word()),
            Self::Fixed(source, offset) => write!(f, "fixed/{source}/{offset}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, rest) = text.split_once('/').ok_or(())?;
        if kind == "fixed" {
            let (source, offset) = rest.split_once('/').ok_or(())?;
            let number = |text: &str| text.parse().map_err(|_syntax| ());
            return Ok(Self::Fixed(number(source)?, number(offset)?));
        }
        let list = List::ALL.into_iter().find(|list| list.word() == kind).ok_or(())?;
        Ok(Self::Dynamic(list, rest.parse().map_err(|_syntax| ())?))
    }
}
