/// Bytes in the map's weights, which have 32 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    shift: u32,
    capacity: u32,
}

impl Scale {
    /// The finest scale of a power of two in which the budget fits.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let shift = (u64::BITS - budget_bytes.leading_zeros()).saturating_sub(u32::BITS);
        // A map of capacity 0 would not even report what it drops.
        let capacity = u32::try_from(budget_bytes >> shift)
            .unwrap_or(u32::MAX)
            .max(1);
        Self { shift, capacity }
    }

    /// The whole budget.
    pub(crate) fn capacity(self) -> u32 {
        self.capacity
    }

    /// The weight of this many bytes: rounded up, and never more than the whole.
    pub(crate) fn units(self, bytes: u64) -> u32 {
        let whole = bytes >> self.shift;
        let units = if whole << self.shift < bytes {
            whole + 1
        } else {
            whole
        };
        u32::try_from(units).unwrap_or(u32::MAX).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn weights_are_bytes_below_4_gib_and_rounded_up_above() {
        let small = Scale::new(u64::from(u32::MAX));
        assert_eq!((small.units(17), small.capacity()), (17, u32::MAX));

        let double = Scale::new(u64::from(u32::MAX) + 1);
        assert_eq!(
            (
                double.units(0),
                double.units(1),
                double.units(2),
                double.units(3)
            ),
            (0, 1, 1, 2)
        );
        assert_eq!(double.capacity(), 1 << 31);

        let huge = Scale::new(u64::MAX);
        assert_eq!(
            (huge.units(1), huge.units(u64::MAX), huge.capacity()),
            (1, u32::MAX, u32::MAX)
        );
        assert_eq!(Scale::new(0).capacity(), 1);
    }
}
