//! What a statistic is: its kind, its place in its family's block, and the two macros that write a family's table.

/// How a statistic is kept and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. One slot.
    Counter,
    /// A counter that shows once it is not zero, where Envoy makes it on the first event.
    Occasional,
    /// Grows and shrinks; the sum over the cores is shown. One slot.
    Gauge,
    /// HTTP responses counted by class and by exact code (see `codes`). Entries show once they are not zero.
    Codes,
    /// Durations, recorded in microseconds and shown in milliseconds with Envoy's buckets.
    Millis,
    /// Durations, recorded and shown in microseconds with buckets that begin at 5 us.
    Micros,
    /// Numbers without a unit (requests per connection) in Envoy's buckets.
    Number,
}

impl Kind {
    /// Slots that a statistic of this kind takes in its block.
    pub const fn slots(self) -> u16 {
        match self {
            Kind::Counter | Kind::Occasional | Kind::Gauge => 1,
            Kind::Codes => crate::codes::CODE_SLOTS,
            Kind::Millis | Kind::Micros | Kind::Number => crate::histogram::HISTOGRAM_SLOTS,
        }
    }

    /// Whether it shows while it is zero and nobody asked for used statistics alone.
    pub(crate) const fn shows_zero(self) -> bool {
        !matches!(self, Kind::Occasional | Kind::Codes)
    }

    pub const fn is_histogram(self) -> bool {
        matches!(self, Kind::Millis | Kind::Micros | Kind::Number)
    }
}

/// One line of a family's table.
#[derive(Debug)]
pub struct StatMeta {
    /// Envoy's name inside the scope, such as `upstream_rq_total`.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// First slot, counted from the block's base.
    pub offset: u16,
}

/// A label of the Prometheus form: its name, and which of the scope's labels is its value.
#[derive(Debug)]
pub struct LabelMeta {
    pub name: &'static str,
    pub value: u8,
}

/// A family's table.
#[derive(Debug)]
pub struct FamilyMeta {
    pub family: crate::families::Family,
    /// Text prefix, with `{0}` for the scope's first label: `cluster.{0}.`
    pub text: &'static str,
    /// Prefix of the Prometheus name: `envoy_cluster_`
    pub metric: &'static str,
    /// Envoy's tags, in the order in which Envoy writes them.
    pub labels: &'static [LabelMeta],
    pub stats: &'static [StatMeta],
    /// Slots of one block.
    pub slots: u16,
}

/// A family's enum of statistics. Implemented by the tables in `families` alone.
pub trait Stat: Copy + 'static {
    const META: &'static FamilyMeta;
    /// First slot, counted from the block's base; a constant where the statistic is one.
    fn offset(self) -> u32;
    fn kind(self) -> Kind;
}

/// Where each statistic of a block begins, and the block's length.
pub(crate) const fn layout<const N: usize>(kinds: &[Kind; N]) -> ([u16; N], u16) {
    let mut offsets = [0; N];
    let mut next = 0;
    let mut i = 0;
    while i < N {
        offsets[i] = next;
        next += kinds[i].slots();
        i += 1;
    }
    (offsets, next)
}

/// One family: the enum of its statistics, their names and layout, and the scope's constructor.
macro_rules! stats {
    (
        $(#[$doc:meta])*
        $stat:ident = $family:ident, scope $scope:ident($($arg:ident),*), text $text:literal, metric $metric:literal,
        labels [$($label:literal = $value:literal),*] {
            $($kind:ident $variant:ident $name:literal $help:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum $stat {
            $(#[doc = $help] $variant,)+
        }

        impl $stat {
            const KINDS: &'static [$crate::stat::Kind; [$($name),+].len()] = &[$($crate::stat::kind!($kind)),+];
            const LAYOUT: ([u16; [$($name),+].len()], u16) = $crate::stat::layout(Self::KINDS);
        }

        impl $crate::stat::Stat for $stat {
            const META: &'static $crate::stat::FamilyMeta = &$crate::stat::FamilyMeta {
                family: $crate::families::Family::$family,
                text: $text,
                metric: $metric,
                labels: &[$($crate::stat::LabelMeta { name: $label, value: $value }),*],
                stats: &[$($crate::stat::StatMeta {
                    name: $name,
                    kind: $crate::stat::kind!($kind),
                    help: $help,
                    offset: $stat::LAYOUT.0[$stat::$variant as usize],
                }),+],
                slots: $stat::LAYOUT.1,
            };

            #[inline(always)]
            fn offset(self) -> u32 {
                u32::from(Self::LAYOUT.0[self as usize])
            }

            #[inline(always)]
            fn kind(self) -> $crate::stat::Kind {
                Self::KINDS[self as usize]
            }
        }

        impl $crate::block::Scope<$stat> {
            $(#[$doc])*
            pub fn $scope($($arg: &str),*) -> Self {
                Self::new(&[$($arg),*])
            }
        }
    };
}

macro_rules! kind {
    (counter) => {
        $crate::stat::Kind::Counter
    };
    (occasional) => {
        $crate::stat::Kind::Occasional
    };
    (gauge) => {
        $crate::stat::Kind::Gauge
    };
    (codes) => {
        $crate::stat::Kind::Codes
    };
    (millis) => {
        $crate::stat::Kind::Millis
    };
    (micros) => {
        $crate::stat::Kind::Micros
    };
    (number) => {
        $crate::stat::Kind::Number
    };
}

/// The list of all families.
macro_rules! families {
    ($($family:ident = $stat:ident,)+) => {
        /// The kinds of scope that carry statistics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Family {
            $($family,)+
        }

        /// Every family's table, in the order of exposition; indexed by `Family`.
        pub static FAMILIES: &[&$crate::stat::FamilyMeta] = &[$(<$stat as $crate::stat::Stat>::META),+];
    };
}

pub(crate) use {families, kind, stats};
