import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TokenDecoder } from './options.js';
import { StopStrings, TextStream } from './text.js';

/** A byte-level decoder: ids are indices of pieces of bytes, which may end within a character. Id 0 is special. */
const byteLevel = (pieces: readonly Uint8Array[]): TokenDecoder => ({
  decode: (ids, { skipSpecialTokens = false } = {}) =>
    new TextDecoder('utf-8', { ignoreBOM: true }).decode(
      Uint8Array.from(ids.flatMap((id) => (id === 0 ? (skipSpecialTokens ? [] : [0x3c, 0x3e]) : [...pieces[id - 1]]))),
    ),
});

/** A decoder as SentencePiece vocabularies have: words, whose leading space is dropped at the very start. */
const words = (list: readonly string[]): TokenDecoder => ({
  decode: (ids) =>
    ids
      .map((id) => ` ${list[id]}`)
      .join('')
      .slice(1),
});

/** Text cut into pieces of 1 to 3 bytes. */
const cutText = fc
  .tuple(fc.string({ unit: 'binary', maxLength: 30 }), fc.infiniteStream(fc.integer({ min: 1, max: 3 })))
  .map(([text, sizes]) => {
    const bytes = new TextEncoder().encode(text);
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const size = sizes.next().value as number;
      pieces.push(bytes.slice(at, at + size));
      at += size;
    }
    return { text: new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes), pieces };
  });

function run(decoder: TokenDecoder, ids: readonly number[]): string[] {
  const stream = new TextStream(decoder);
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

describe('TextStream', () => {
  it('joins to the whole and splits no character, wherever tokens cut it', () => {
    fc.assert(
      fc.property(cutText, ({ text, pieces }) => {
        const out = run(
          byteLevel(pieces),
          pieces.map((_, i) => i + 1),
        );
        expect(out.join('')).toBe(text);
        const characters = new Set([0, ...prefixLengths(text)]);
        let length = 0;
        for (const piece of out) expect(characters.has((length += piece.length))).toBe(true);
      }),
      { seed: 3, numRuns: 500 },
    );
  });

  it('joins to the whole for any bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 3 }), { maxLength: 20 }), (pieces) => {
        const decoder = byteLevel(pieces);
        const ids = pieces.map((_, i) => i + 1);
        expect(run(decoder, ids).join('')).toBe(decoder.decode(ids));
      }),
      { seed: 4, numRuns: 500 },
    );
  });

  it('gives each character with the token that completes it', () => {
    const bytes = new TextEncoder().encode('aé😀b');
    const pieces = Array.from(bytes, (byte) => Uint8Array.of(byte));
    expect(
      run(
        byteLevel(pieces),
        pieces.map((_, i) => i + 1),
      ),
    ).toEqual(['a', '', 'é', '', '', '', '😀', 'b', '']);
  });

  it('leaves special tokens out', () => {
    const pieces = [Uint8Array.of(97), Uint8Array.of(98)];
    expect(run(byteLevel(pieces), [1, 0, 2, 0])).toEqual(['a', '', 'b', '', '']);
  });

  it('keeps the spaces of a decoder that drops the first', () => {
    const list = ['one', 'two', 'three'];
    fc.assert(
      fc.property(fc.array(fc.nat(2), { maxLength: 12 }), (ids) => {
        expect(run(words(list), ids).join('')).toBe(words(list).decode(ids));
      }),
      { seed: 5 },
    );
  });

  it('holds back ids that later ones can change', () => {
    const decoder: TokenDecoder = {
      decode: (ids) => (ids.join('') === '12' ? '??' : ids.map((id) => 'xy.'[id - 1]).join('')),
      isPartial: (id) => id < 3,
    };
    expect(run(decoder, [1, 2])).toEqual(['', '', '??']);
    expect(run(decoder, [1, 3])).toEqual(['', 'x.', '']);
  });
});

describe('TextStream behind a prompt', () => {
  const list = ['one', 'two', 'three', '<s>'];
  const pieces = (decoder: TokenDecoder, prompt: readonly number[], ids: readonly number[]): string[] => {
    const stream = new TextStream(decoder, prompt);
    return [...ids.map((id) => stream.push(id)), stream.end()];
  };
  const visibleWords: TokenDecoder = {
    decode: (ids, { skipSpecialTokens = false } = {}) =>
      ids
        .filter((id) => id !== 3 || !skipSpecialTokens)
        .map((id) => (id === 3 ? '<s>' : ` ${list[id]}`))
        .join('')
        .replace(/^ /, ''),
  };

  it('gives what the whole has more than the prompt, whatever the prompt', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 40 }), fc.array(fc.nat(3), { maxLength: 12 }), (prompt, ids) => {
        const skip = { skipSpecialTokens: true };
        const text = pieces(visibleWords, prompt, ids).join('');
        expect(visibleWords.decode(prompt, skip) + text).toBe(visibleWords.decode([...prompt, ...ids], skip));
      }),
      { seed: 7, numRuns: 500 },
    );
  });

  it('completes a character that the prompt began', () => {
    const decoder = byteLevel(Array.from(new TextEncoder().encode('aé€'), (byte) => Uint8Array.of(byte)));
    expect(pieces(decoder, [1, 2], [3, 1])).toEqual(['é', 'a', '']);
    expect(pieces(decoder, [1, 4], [5, 6, 1])).toEqual(['', '€', 'a', '']);
  });

  it('decodes a few ids of a long prompt, not all of it', () => {
    let longest = 0;
    const decoder: TokenDecoder = {
      decode: (ids, options) => {
        longest = Math.max(longest, ids.length);
        return visibleWords.decode(ids, options);
      },
    };
    pieces(decoder, Array<number>(5000).fill(1), [0, 1, 2]);
    expect(longest).toBeLessThan(20);
  });
});

/** Byte fallback as SentencePiece has it: ids below 256 are bytes; a run of them is text, or one U+FFFD for each. */
const byteFallback: TokenDecoder = {
  decode: (ids) => {
    const out: string[] = [];
    for (let at = 0; at < ids.length; at++) {
      if (ids[at] >= 256) {
        out.push(ids[at] === 256 ? 'word' : ' ');
        continue;
      }
      const start = at;
      while (at + 1 < ids.length && ids[at + 1] < 256) at += 1;
      const run = Uint8Array.from(ids.slice(start, at + 1));
      try {
        out.push(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(run));
      } catch {
        out.push('\ufffd'.repeat(run.length));
      }
    }
    return out.join('');
  },
  isPartial: (id) => id < 256,
};

describe('bytes that never become a character', () => {
  it('byte fallback: are given out after four', () => {
    const out = run(byteFallback, [256, 0xe2, 0xe2, 0x41, 0xe2, 0x82, 0xac, 256]);
    expect(out).toEqual(['word', '', '', '', '\ufffd'.repeat(4), '\ufffd', '\ufffd', 'word', '']);
  });

  it('byte fallback: join to the whole, and a character is never split, for any bytes', () => {
    const byte = fc.oneof(fc.constantFrom(...new TextEncoder().encode('é€😀a')), fc.nat(255));
    const ids = fc.array(
      fc.oneof({ arbitrary: byte, weight: 4 }, { arbitrary: fc.integer({ min: 256, max: 257 }), weight: 1 }),
    );
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 256, max: 257 }), { maxLength: 3 }), ids, (prompt, all) => {
        const stream = new TextStream(byteFallback, prompt);
        const text = [...all.map((id) => stream.push(id)), stream.end()].join('');
        expect(byteFallback.decode(prompt) + text).toBe(byteFallback.decode([...prompt, ...all]));
      }),
      { seed: 8, numRuns: 2000 },
    );
  });

  it('byte fallback: a long run costs no more than a short one', () => {
    let longest = 0;
    const decoder: TokenDecoder = {
      ...byteFallback,
      decode: (ids, options) => {
        longest = Math.max(longest, ids.length);
        return byteFallback.decode(ids, options);
      },
    };
    expect(run(decoder, Array<number>(1000).fill(0x80)).join('')).toBe('\ufffd'.repeat(1000));
    expect(longest).toBeLessThan(12);
  });

  it('byte level: only the last may still become one', () => {
    const decoder = byteLevel([Uint8Array.of(0xff), Uint8Array.of(0xf0, 0x9f), Uint8Array.of(0x98, 0x80)]);
    expect(run(decoder, [1, 1, 2, 3, 1])).toEqual(['', '\ufffd', '\ufffd', '😀', '', '\ufffd']);
    expect(run(decoder, Array<number>(500).fill(1)).join('')).toBe('\ufffd'.repeat(500));
  });
});

const prefixLengths = (text: string): number[] => {
  let length = 0;
  return Array.from(text, (character) => (length += character.length));
};

describe('StopStrings', () => {
  const feed = (stops: readonly string[], pieces: readonly string[]) => {
    const matcher = new StopStrings(stops);
    const out: string[] = [];
    for (const piece of pieces) {
      const { text, stopped } = matcher.push(piece);
      out.push(text);
      if (stopped) return { out, stopped };
    }
    return { out: [...out, matcher.end()], stopped: false };
  };

  it('finds what spans pieces, and shows nothing of it', () => {
    expect(feed(['\n\nUser:'], ['Hi', '\n', '\nUs', 'er: x'])).toEqual({ out: ['Hi', '', '', ''], stopped: true });
    expect(feed(['\n\nUser:'], ['Hi', '\n', '\nUs', 'ers'])).toEqual({
      out: ['Hi', '', '', '\n\nUsers', ''],
      stopped: false,
    });
  });

  it('searches special tokens, and shows nothing of them', () => {
    const matcher = new StopStrings(['<end>x', 'b<end>']);
    expect(matcher.push('a')).toEqual({ text: 'a', stopped: false });
    expect(matcher.push('<end>', { hidden: true })).toEqual({ text: '', stopped: false });
    expect(matcher.push('y')).toEqual({ text: 'y', stopped: false });
    expect(matcher.push('ab')).toEqual({ text: 'a', stopped: false });
    expect(matcher.push('<end>', { hidden: true })).toEqual({ text: '', stopped: true });
    const other = new StopStrings(['<end>x']);
    other.push('<end>', { hidden: true });
    expect(other.push('x')).toEqual({ text: '', stopped: true });
    const unfinished = new StopStrings(['<end>x']);
    expect([unfinished.push('a').text, unfinished.push('<end>', { hidden: true }).text, unfinished.end()]).toEqual([
      'a',
      '',
      '',
    ]);
  });

  it('does what searching the whole text does', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 4 });
    fc.assert(
      fc.property(
        fc.array(letters, { maxLength: 12 }),
        fc.array(
          letters.filter((stop) => stop.length > 0),
          { minLength: 1, maxLength: 3 },
        ),
        (pieces, stops) => {
          const { out, stopped } = feed(stops, pieces);
          const text = pieces.join('');
          const ends = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
          expect(stopped).toBe(ends.length > 0);
          // Of stop strings that are complete by the same piece, the one that begins first counts.
          if (!stopped) expect(out.join('')).toBe(text);
          else expect(stops.some((stop) => text.startsWith(out.join('') + stop))).toBe(true);
        },
      ),
      { seed: 6, numRuns: 1000 },
    );
  });
});
