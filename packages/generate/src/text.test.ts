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
