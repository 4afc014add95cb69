//! Counters that cost a plain addition.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writing thread, so that counting needs no locked instruction. Anybody may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So many more.
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// This from now on.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// At least this from now on.
    pub fn raise(&self, value: u64) {
        if value > self.get() {
            self.set(value);
        }
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A set of counters, and what they say at one moment: a struct of numbers that add up, and that can be taken off each
/// other. Each counter is named and explained once.
macro_rules! counters {
    ($(#[$about:meta])* $live:ident, $(#[$said_about:meta])* $said:ident { $($(#[$doc:meta])* $name:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $live {
            $($(#[$doc])* pub $name: crate::stats::counter::Counter,)+
        }

        $(#[$said_about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
        pub struct $said {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl $live {
            /// Read one after the other, so sums can be off by what happens meanwhile.
            pub fn read(&self) -> $said {
                $said { $($name: self.$name.get(),)+ }
            }
        }

        impl std::ops::Add for $said {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)+ }
            }
        }

        impl std::iter::Sum for $said {
            fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
                all.fold(Self::default(), |a, b| a + b)
            }
        }

        impl $said {
            /// What has come since `before`.
            #[must_use]
            pub fn since(self, before: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(before.$name),)+ }
            }
        }
    };
}

pub(super) use counters;
