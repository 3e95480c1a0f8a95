//! Sound that is recognisably a telephone call without being anybody's: a ringback tone, then two voices that take
//! turns. A voice is a buzz of a speaker's pitch sent through three resonances that move from vowel to vowel, with
//! bursts of noise for consonants.

use std::f32::consts::TAU;

use super::random::Random;

/// Samples a second, as telephony has them.
pub(super) const RATE: u32 = 8000;
const RATE_F: f32 = 8000.0;

/// Which tone a caller hears while it rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ringback {
    /// 440 and 480 Hz (North America).
    American,
    /// 425 Hz (ETSI TR 101 041).
    European,
}

/// Two channels of one call, of the same length.
pub(super) struct Sound {
    pub customer: Vec<i16>,
    pub agent: Vec<i16>,
}

impl Sound {
    /// Both in one channel, as a PBX mixes them.
    pub fn mixed(&self) -> impl Iterator<Item = i16> + '_ {
        self.customer.iter().zip(&self.agent).map(|(a, b)| a.saturating_add(*b))
    }

    /// Left and right in turn: the customer is on the left.
    pub fn interleaved(&self) -> impl Iterator<Item = i16> + '_ {
        self.customer.iter().zip(&self.agent).flat_map(|(a, b)| [*a, *b])
    }
}

/// Resonances of vowels in Hz: Peterson and Barney (1952), rounded.
const VOWELS: [[f32; 3]; 6] = [
    [730.0, 1090.0, 2440.0],
    [530.0, 1840.0, 2480.0],
    [270.0, 2290.0, 3010.0],
    [570.0, 840.0, 2410.0],
    [300.0, 870.0, 2240.0],
    [640.0, 1190.0, 2390.0],
];
/// Widths of the three resonances in Hz.
const WIDTHS: [f32; 3] = [80.0, 110.0, 160.0];

/// Makes a call of this many seconds.
pub(super) fn call(seconds: f32, ringback: Ringback, random: &mut Random) -> Sound {
    let length = (seconds * RATE_F) as usize;
    let mut customer = vec![0.0_f32; length];
    let mut agent = vec![0.0_f32; length];
    let ringing = (length / 5).min((1.2 * RATE_F) as usize);
    ring(customer.iter_mut().take(ringing), ringback);

    let voices = [random.between(95.0, 135.0), random.between(165.0, 225.0)];
    // Either of them may be the one with the lower voice; the agent speaks first.
    let swapped = random.one_in(2);
    let mut at = ringing + samples(random.between(0.2, 0.4));
    let mut agents_turn = true;
    while at < length {
        let turn = samples(random.between(0.7, 2.0)).min(length - at);
        let channel = if agents_turn { &mut agent } else { &mut customer };
        let [low, high] = voices;
        let pitch = if agents_turn == swapped { low } else { high };
        if let Some(samples) = channel.get_mut(at..at + turn) {
            speak(samples, pitch, random);
        }
        at += turn + samples(random.between(0.12, 0.45));
        agents_turn = !agents_turn;
    }
    Sound { customer: line(&customer, random), agent: line(&agent, random) }
}

fn samples(seconds: f32) -> usize {
    (seconds * RATE_F) as usize
}

fn ring<'s>(samples: impl Iterator<Item = &'s mut f32>, ringback: Ringback) {
    let frequencies: &[f32] = match ringback {
        Ringback::American => &[440.0, 480.0],
        Ringback::European => &[425.0],
    };
    for (number, sample) in samples.enumerate() {
        let time = number as f32 / RATE_F;
        *sample = frequencies.iter().map(|hertz| (TAU * hertz * time).sin()).sum::<f32>() * 0.12;
    }
}

/// One turn: syllables, each a consonant and a vowel, at falling pitch.
fn speak(out: &mut [f32], pitch: f32, random: &mut Random) {
    let length = out.len();
    let mut phase = 0.0_f32;
    let mut voice = [Resonator::default(), Resonator::default(), Resonator::default()];
    let mut at = 0;
    while at < length {
        let consonant = samples(random.between(0.03, 0.08));
        let vowel = samples(random.between(0.09, 0.2));
        let formants = random.pick(&VOWELS);
        for ((resonator, hertz), width) in voice.iter_mut().zip(formants).zip(WIDTHS) {
            resonator.tune(hertz * random.between(0.95, 1.05), width);
        }
        let loudness = random.between(0.6, 1.0);
        let syllable = (consonant + vowel).min(length - at);
        let mut last_noise = 0.0;
        for (number, sample) in out.iter_mut().skip(at).take(syllable).enumerate() {
            if number < consonant {
                let noise = random.between(-1.0, 1.0);
                // The difference of neighbours keeps the high part, which is what hisses.
                *sample = (noise - last_noise) * 0.07 * swell(number, consonant) * loudness;
                last_noise = noise;
            } else {
                let spoken = (at + number) as f32 / length as f32;
                let wobble = 1.0 + 0.03 * (number as f32 * 0.004).sin();
                phase += pitch * (1.12 - 0.25 * spoken) * wobble / RATE_F;
                let pulse = if phase >= 1.0 { 1.0 } else { 0.0 };
                phase = phase.fract();
                let sound: f32 = voice.iter_mut().map(|resonator| resonator.step(pulse)).sum();
                *sample = sound * 0.9 * swell(number - consonant, vowel) * loudness;
            }
        }
        at += syllable;
        // Words end now and then.
        if random.one_in(4) {
            at += samples(random.between(0.04, 0.12));
        }
    }
}

/// Rises and falls smoothly over `length` samples.
fn swell(number: usize, length: usize) -> f32 {
    let edge = (length / 4).max(1);
    let from_end = length.saturating_sub(number);
    (number.min(from_end) as f32 / edge as f32).min(1.0)
}

/// What a telephone line makes of it: faint noise, 16 bits.
fn line(samples: &[f32], random: &mut Random) -> Vec<i16> {
    let convert = |sample: &f32| {
        let noisy = sample + random.between(-0.002, 0.002);
        // Room is left for the sum of both.
        (noisy.clamp(-1.0, 1.0) * 16_000.0) as i16
    };
    samples.iter().map(convert).collect()
}

/// Two poles: rings at one frequency.
#[derive(Default)]
struct Resonator {
    a1: f32,
    a2: f32,
    gain: f32,
    y1: f32,
    y2: f32,
}

impl Resonator {
    fn tune(&mut self, hertz: f32, width: f32) {
        let radius = (-std::f32::consts::PI * width / RATE_F).exp();
        self.a1 = 2.0 * radius * (TAU * hertz / RATE_F).cos();
        self.a2 = -radius * radius;
        self.gain = 1.0 - radius;
    }

    fn step(&mut self, input: f32) -> f32 {
        let output = self.gain * input * 6.0 + self.a1 * self.y1 + self.a2 * self.y2;
        self.y2 = self.y1;
        self.y1 = output;
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_sounds_and_is_the_same_each_time() {
        let make = || call(4.0, Ringback::American, &mut Random::new(7));
        let sound = make();
        assert_eq!((sound.customer.len(), sound.agent.len()), (32_000, 32_000));
        assert_eq!(sound.customer, make().customer);
        for channel in [&sound.customer, &sound.agent] {
            let loud = channel.iter().filter(|sample| sample.unsigned_abs() > 600).count();
            assert!(loud > 1500, "a channel of a call isn't silent: {loud}");
            let clipped = channel.iter().filter(|sample| sample.unsigned_abs() >= 15_990).count();
            assert!(clipped < 300, "nor does it distort: {clipped}");
        }
        assert_eq!(sound.mixed().count(), 32_000);
        assert_eq!(sound.interleaved().count(), 64_000);
    }
}
