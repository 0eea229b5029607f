//! Numbers and addresses as text, without the heap.

use std::{
    io::{Cursor, Write},
    net::IpAddr,
};

/// The longest IPv6 address as text.
pub(crate) const ADDRESS_TEXT_MAX: usize = 45;

/// `text` has [`ADDRESS_TEXT_MAX`] bytes or more.
pub(crate) fn address_text(address: IpAddr, text: &mut [u8]) -> &[u8] {
    let mut cursor = Cursor::new(&mut *text);
    let written = write!(cursor, "{address}").map(|()| cursor.position() as usize);
    &text[..written.unwrap_or(0)]
}
