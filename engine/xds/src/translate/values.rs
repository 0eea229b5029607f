//! Durations, addresses, shares and Anys as the snapshot has them.

use super::{Context, api};
use crate::schema::type_name;
use corelane_snapshot::{Cidr, Fraction, Metadata, Value};
use prost::Message;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

type ProtoDuration = prost_types::Duration;

/// None where unset, or negative and reported.
pub(super) fn duration(cx: &mut Context<'_>, field: &str, value: &Option<ProtoDuration>) -> Option<Duration> {
    let value = value.as_ref()?;
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            cx.error_at(field, "must not be negative");
            None
        }
    }
}

/// A timeout of which 0 s means none; `default` where unset.
pub(super) fn timeout(
    cx: &mut Context<'_>,
    field: &str,
    value: &Option<ProtoDuration>,
    default: Option<Duration>,
) -> Option<Duration> {
    if value.is_none() {
        return default;
    }
    duration(cx, field, value).filter(|duration| !duration.is_zero())
}

/// A timeout that overrides another: unset leaves the other, 0 s switches it off.
pub(super) fn override_timeout(
    cx: &mut Context<'_>,
    field: &str,
    value: &Option<ProtoDuration>,
) -> Option<Option<Duration>> {
    value.is_some().then(|| timeout(cx, field, value, None))
}

/// envoy.type.v3.FractionalPercent.
pub(super) fn fraction(cx: &mut Context<'_>, value: &api::types::FractionalPercent) -> Option<Fraction> {
    use api::types::fractional_percent::DenominatorType;
    let scale = match value.denominator() {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    let millionths = value.numerator.checked_mul(scale).filter(|millionths| *millionths <= 1_000_000);
    if millionths.is_none() {
        cx.error_at("numerator", format!("{} is more than the whole", value.numerator));
    }
    millionths.map(Fraction)
}

pub(super) fn runtime_fraction(
    cx: &mut Context<'_>,
    field: &str,
    value: &Option<api::core::RuntimeFractionalPercent>,
    default: Fraction,
) -> Fraction {
    let Some(value) = value else { return default };
    cx.within(field, |cx| cx.optional("default_value", &value.default_value, fraction)).unwrap_or(default)
}

pub(super) fn cidr(cx: &mut Context<'_>, range: &api::core::CidrRange) -> Option<Cidr> {
    let Ok(address) = range.address_prefix.parse::<IpAddr>() else {
        cx.error_at("address_prefix", format!("`{}` is no IP address", range.address_prefix));
        return None;
    };
    let length = range.prefix_len.unwrap_or(0);
    match u8::try_from(length).ok().and_then(|length| ipnet::IpNet::new(address, length).ok()) {
        Some(net) => Some(Cidr(net.trunc())),
        None => {
            cx.error_at("prefix_len", format!("{length} bits are more than the address has"));
            None
        }
    }
}

/// An address that must be an IP address and a port.
pub(super) fn socket_address(cx: &mut Context<'_>, address: &api::core::Address) -> Option<SocketAddr> {
    use api::core::address::Address;
    let Some(Address::SocketAddress(address)) = &address.address else { return None };
    cx.within("socket_address", |cx| ip_and_port(cx, address))
}

pub(super) fn ip_and_port(cx: &mut Context<'_>, address: &api::core::SocketAddress) -> Option<SocketAddr> {
    let port = port(cx, address)?;
    match address.address.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(_) => {
            cx.error_at("address", format!("`{}` is no IP address", address.address));
            None
        }
    }
}

pub(super) fn port(cx: &mut Context<'_>, address: &api::core::SocketAddress) -> Option<u16> {
    use api::core::socket_address::{PortSpecifier, Protocol};
    if address.protocol() != Protocol::Tcp {
        cx.error_at("protocol", "UDP is not implemented");
    }
    match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => port_number(cx, "port_value", port),
        None => None,
    }
}

pub(super) fn port_number(cx: &mut Context<'_>, field: &str, port: u32) -> Option<u16> {
    let number = u16::try_from(port).ok();
    if number.is_none() {
        cx.error_at(field, format!("{port} is no port"));
    }
    number
}

/// Full name of the message in an Any.
pub(super) fn any_type(any: &prost_types::Any) -> &str {
    type_name(&any.type_url)
}

pub(super) fn decode<M: Message + Default>(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<M> {
    match M::decode(any.value.as_slice()) {
        Ok(message) => Some(message),
        Err(error) => {
            cx.error(format!("{} does not decode: {error}", any_type(any)));
            None
        }
    }
}

/// An extension that is known to protobuf but has no place where it stands.
pub(super) fn misplaced(cx: &mut Context<'_>, any: &prost_types::Any, what: &str) {
    cx.error(format!("`{}` is no {what} that is implemented", any_type(any)));
}

/// What an extension point that is not set lacks.
pub(super) fn required<'m, M>(cx: &mut Context<'_>, field: &str, message: Option<&'m M>) -> Option<&'m M> {
    if message.is_none() {
        cx.error_at(field, "must be set");
    }
    message
}

/// The first and the last port. range.proto: start inclusive, end exclusive.
pub(super) fn port_range(cx: &mut Context<'_>, range: &api::types::Int32Range) -> Option<(u16, u16)> {
    match (u16::try_from(range.start), u16::try_from(range.end.saturating_sub(1))) {
        (Ok(first), Ok(last)) if first <= last => Some((first, last)),
        _ => {
            cx.error(format!("{}..{} is no range of ports", range.start, range.end));
            None
        }
    }
}

/// Metadata as rules see it; None: there is nothing in it.
pub(super) fn metadata(found: &api::core::Metadata) -> Option<Metadata> {
    let fields = found.filter_metadata.iter();
    let all = Metadata(fields.map(|(name, fields)| (name.as_str().into(), struct_value(fields))).collect());
    (!all.0.is_empty()).then_some(all)
}

/// The reader of files bounds how deep values stand inside each other, protobuf's decoder as well.
fn struct_value(found: &prost_types::Struct) -> Value {
    Value::Struct(found.fields.iter().map(|(key, found)| (key.as_str().into(), value(found))).collect())
}

fn value(found: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match found.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(found)) => Value::Bool(*found),
        Some(Kind::NumberValue(found)) => Value::Number(*found),
        Some(Kind::StringValue(found)) => Value::Text(found.as_str().into()),
        Some(Kind::ListValue(found)) => Value::List(found.values.iter().map(value).collect()),
        Some(Kind::StructValue(found)) => struct_value(found),
    }
}

/// The strings of one namespace of metadata, sorted by key; other scalars count as their text.
pub(super) fn labels(
    cx: &mut Context<'_>,
    metadata: &Option<api::core::Metadata>,
    namespace: &str,
) -> Vec<(Box<str>, Box<str>)> {
    let Some(fields) = metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(namespace)) else {
        return Vec::new();
    };
    labels_of(cx, fields)
}

pub(super) fn labels_of(_cx: &mut Context<'_>, fields: &prost_types::Struct) -> Vec<(Box<str>, Box<str>)> {
    use prost_types::value::Kind;
    let text = |value: &prost_types::Value| match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::BoolValue(value) => Some(value.to_string()),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    };
    // a BTreeMap: sorted already
    fields.fields.iter().filter_map(|(key, value)| Some((key.as_str().into(), text(value)?.into()))).collect()
}
