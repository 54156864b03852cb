import { expect, it } from 'vitest';
import { pipelineOf } from './pipeline.js';
import { specialTokensOf } from './special-tokens.js';
import { TokenFinder } from './token-finder.js';

const plain = { pair: undefined, addSpecialTokens: false, splitSpecialTokens: false };

/** The leftmost, and of these the longest, by looking everywhere. */
function slowly(tokens: readonly string[], text: string): number[] {
  const found: number[] = [];
  for (let start = 0; start < text.length;) {
    const here = tokens.filter((token) => text.startsWith(token, start));
    const longest = here.reduce((best, token) => (token.length > best.length ? token : best), '');
    if (longest !== '') found.push(start, start + longest.length, tokens.indexOf(longest));
    start += Math.max(1, longest.length);
  }
  return found;
}

it('finds the leftmost and longest tokens, whatever they share', () => {
  let state = 7;
  const random = (below: number): number => (state = (state * 48271) % 0x7fffffff) % below;
  const word = (most: number): string => Array.from({ length: 1 + random(most) }, () => 'abc'[random(3)]).join('');
  for (let round = 0; round < 2000; round++) {
    const tokens = [...new Set(Array.from({ length: 1 + random(8) }, () => word(6)))];
    const finder = new TokenFinder(1000);
    tokens.forEach((token, id) => finder.add(token, id));
    const text = word(40);
    expect([tokens, text, finder.find(text)]).toEqual([tokens, text, slowly(tokens, text)]);
  }
});

it('takes the first of equal tokens, no empty ones, and halves of characters', () => {
  const finder = new TokenFinder(1000);
  expect(finder.find('abc')).toEqual([]);
  finder.add('', 9);
  expect(finder.find('abc')).toEqual([]);
  finder.add('b', 1);
  finder.add('b', 2);
  finder.add('\ud83d', 3);
  expect(finder.find('abc \u{1f600}')).toEqual([1, 2, 1, 4, 5, 3]);
});

it('loads and searches many tokens that begin alike in linear time', () => {
  const beginning = 'a'.repeat(300);
  const added = Array.from({ length: 60_000 }, (_, i) => ({
    id: 2 + i,
    content: `${beginning}${i}`,
    normalized: i % 2 === 0,
    special: false,
  }));
  const pipeline = pipelineOf({ model: { type: 'BPE', vocab: { a: 0, b: 1 }, merges: [] }, added_tokens: added });
  const { toAdd } = specialTokensOf({ config: {}, own: pipeline.added.tokens });
  expect(toAdd(pipeline.added.tokens.values())).toEqual([]);
  const ids = pipeline.encode(`${'a'.repeat(20_000)}59999`, plain);
  expect(ids).toHaveLength(20_000 - 300 + 1);
  expect(ids.at(-1)).toBe(2 + 59_999);
}, 60_000);

it('encodes and decodes words of very many characters', () => {
  const long = 'é'.repeat(100_000);
  const bytes = Object.fromEntries(
    Array.from({ length: 256 }, (_, byte) => [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, byte]),
  );
  const vocab = { ...bytes, '[UNK]': 256 };
  const bpe = pipelineOf({
    model: { type: 'BPE', vocab, merges: [], byte_fallback: true },
    decoder: { type: 'ByteFallback' },
  });
  const ids = bpe.encode(long, plain);
  expect(ids).toHaveLength(200_000);
  expect(bpe.decode(ids, false) === long).toBe(true);
  expect(bpe.decode(ids.slice(1), false)).toHaveLength(199_999);
  const pieces = [...Object.keys(vocab)].map((piece) => [piece, -1]);
  const unigram = pipelineOf({ model: { type: 'Unigram', vocab: pieces, unk_id: 256, byte_fallback: true } });
  expect(unigram.encode(long, plain)).toHaveLength(200_000);
}, 60_000);
