//! The only source of variation.
//!
//! Whatever differs between two runs was asked for here: which faults exist, when they strike, how many bytes a read
//! returns. A run records what it was answered, so that it can be repeated, and shrunk by making the list of answers
//! shorter and its numbers smaller.
//!
//! **Choice 0 is always the boring one**: no fault, the smallest, the usual. So a list that has come to its end goes
//! on as a quiet run, and a shrunk list is a quiet run with the few choices in it that matter.

use std::time::Duration;

/// One answer, and how many there were to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What was chosen, below `bound`.
    pub value: u32,
    /// How many possibilities there were.
    pub bound: u32,
}

/// Answers questions, and remembers the answers.
#[derive(Clone, Debug)]
pub struct Choices {
    source: Source,
    made: Vec<Choice>,
}

#[derive(Clone, Debug)]
enum Source {
    Seed(fastrand::Rng),
    List(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Choices {
    /// As a generator of random numbers says.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self::from(Source::Seed(fastrand::Rng::with_seed(seed)))
    }

    /// As recorded; boring behind the end of the list.
    #[must_use]
    pub fn list(list: Vec<u32>) -> Self {
        Self::from(Source::List(list))
    }

    /// As the bytes of a fuzzer say: one or two a choice; boring behind their end.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        let mut reversed = bytes.to_vec();
        reversed.reverse();
        Self::from(Source::Bytes(reversed))
    }

    /// Nothing but boring choices.
    #[must_use]
    pub fn boring() -> Self {
        Self::list(Vec::new())
    }

    /// The choices that come next when all that there are are to be tried: like the display of an odometer, the last
    /// digit first. `None` behind the last.
    ///
    /// ```
    /// use larder_sim::Choices;
    ///
    /// let (mut next, mut seen) = (Some(Choices::boring()), Vec::new());
    /// while let Some(mut choices) = next {
    ///     // The second question is only asked after some answers to the first.
    ///     let first = choices.below(2);
    ///     seen.push((first, if first == 1 { choices.below(3) } else { 0 }));
    ///     next = choices.successor();
    /// }
    /// assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
    /// ```
    #[must_use]
    pub fn successor(self) -> Option<Self> {
        let mut digits = self.made;
        while let Some(Choice { value, bound }) = digits.pop() {
            if value + 1 < bound {
                let head = digits.iter().map(|digit| digit.value);
                return Some(Self::list(head.chain([value + 1]).collect()));
            }
        }
        None
    }

    fn from(source: Source) -> Self {
        Self { source, made: Vec::new() }
    }

    /// A number below `bound`; 0 where there is nothing to choose.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.choose(bound, |rng| rng.u32(0..bound))
    }

    /// A number between the two; `least` is the boring one.
    pub fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// Whether something happens that has so many chances of a thousand. One that has none costs no choice.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.choose(2, |rng| u32::from(rng.u32(0..1000) < per_mille)) == 1
    }

    /// Which of several, by their weights; the first is the boring one.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u32 = weights.iter().sum();
        if total == 0 {
            return 0;
        }
        let chosen = self.choose(weights.len() as u32, |rng| {
            let mut left = rng.u32(0..total);
            weights
                .iter()
                .take_while(|&&weight| {
                    left >= weight && {
                        left -= weight;
                        true
                    }
                })
                .count() as u32
        });
        chosen as usize
    }

    /// One of several; the first is the boring one.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    /// A time of up to `most`, in thousandths of it, more often short than long.
    pub fn duration(&mut self, most: Duration) -> Duration {
        let thousandths = self.choose(1001, |rng| rng.u32(0..=1000) * rng.u32(0..=1000) / 1000);
        most * thousandths / 1000
    }

    /// What was chosen so far.
    #[must_use]
    pub fn made(&self) -> &[Choice] {
        &self.made
    }

    fn choose(&mut self, bound: u32, seeded: impl FnOnce(&mut fastrand::Rng) -> u32) -> u32 {
        if bound <= 1 {
            return 0;
        }
        let value = match &mut self.source {
            Source::Seed(rng) => seeded(rng),
            Source::List(list) => list.get(self.made.len()).copied().unwrap_or(0),
            Source::Bytes(bytes) if bound <= 256 => u32::from(bytes.pop().unwrap_or(0)) % bound,
            Source::Bytes(bytes) => {
                let (high, low) = (bytes.pop().unwrap_or(0), bytes.pop().unwrap_or(0));
                u32::from(u16::from_be_bytes([high, low])) % bound
            }
        };
        let value = value.min(bound - 1);
        self.made.push(Choice { value, bound });
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(choices: &mut Choices) -> Vec<u32> {
        let mut answers = Vec::new();
        for _ in 0..20 {
            answers.push(choices.below(10));
            answers.push(u32::from(choices.chance(300)));
            answers.push(choices.weighted(&[5, 0, 3]) as u32);
            answers.push(choices.duration(Duration::from_secs(1)).as_millis() as u32);
        }
        answers
    }

    #[test]
    fn a_recorded_list_repeats_a_seed() {
        let mut seeded = Choices::seed(3);
        let answers = ask(&mut seeded);
        let list = seeded.made().iter().map(|choice| choice.value).collect();
        assert_eq!(ask(&mut Choices::list(list)), answers);
        assert_ne!(ask(&mut Choices::seed(4)), answers);
    }

    #[test]
    fn behind_the_end_everything_is_boring() {
        for mut choices in [Choices::boring(), Choices::bytes(b"")] {
            assert!(ask(&mut choices).iter().all(|&answer| answer == 0));
        }
    }

    #[test]
    fn no_answer_is_out_of_bounds() {
        for mut choices in [Choices::list(vec![u32::MAX; 10]), Choices::bytes(&[255; 10]), Choices::seed(1)] {
            assert!(choices.below(3) < 3 && choices.weighted(&[1, 1]) < 2 && choices.below(1000) < 1000);
            assert_eq!((choices.below(0), choices.below(1), choices.weighted(&[0, 0])), (0, 0, 0));
            assert!((5..=7).contains(&choices.between(5, 7)));
        }
    }

    #[test]
    fn weights_and_chances_are_kept() {
        let mut choices = Choices::seed(9);
        let drawn: Vec<usize> = (0..1000).map(|_| choices.weighted(&[1, 0, 3])).collect();
        assert!(drawn.iter().all(|&which| which != 1));
        assert!((200..300).contains(&drawn.iter().filter(|&&which| which == 0).count()));
        let happened = (0..1000).filter(|_| choices.chance(100)).count();
        assert!((60..140).contains(&happened), "{happened}");
    }
}
