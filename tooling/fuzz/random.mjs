// Numbers that follow from a seed alone, so that an input can be made again.

/** A 32-bit hash of the parts (FNV-1a, then a final mix). */
export function hash(...parts) {
  let state = 0x811c9dc5;
  for (const unit of parts.join('\u0000')) state = Math.imul(state ^ unit.codePointAt(0), 0x01000193);
  state = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
  return (state ^ (state >>> 13)) >>> 0;
}

/** A generator (mulberry32) with the draws that mutators need. */
export class Random {
  #state;
  constructor(...seed) {
    this.#state = hash(...seed);
  }

  /** From 0 up to, without, 1. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let value = this.#state;
    value = Math.imul(value ^ (value >>> 15), value | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `low` to `high`, both included. */
  int(low, high) {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  /** True in `share` of the draws. */
  chance(share) {
    return this.next() < share;
  }

  pick(list) {
    return list[this.int(0, list.length - 1)];
  }

  bytes(length) {
    return Buffer.from(Array.from({ length }, () => this.int(0, 255)));
  }
}
