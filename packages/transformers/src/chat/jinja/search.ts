// Finding a text in a text, in time linear in both: the engine's own search takes their product for a needle such as
// 'b' + 'a'.repeat(n) in 'a'.repeat(m).
import type { Budget } from './budget.js';

/** Needles up to this long go to the engine: the product is then bounded by a constant factor. */
const SHORT = 32;

/** For each prefix of the needle, the length of the longest proper prefix that ends it (Knuth, Morris, Pratt). */
function borders(needle: string): Int32Array {
  const table = new Int32Array(needle.length);
  for (let i = 1, length = 0; i < needle.length; i++) {
    while (length > 0 && needle[i] !== needle[length]) length = table[length - 1];
    if (needle[i] === needle[length]) length++;
    table[i] = length;
  }
  return table;
}

function searcher(needle: string): (text: string, from: number) => number {
  if (needle.length <= SHORT) return (text, from) => text.indexOf(needle, from);
  const table = borders(needle);
  return (text, from) => {
    for (let i = from, length = 0; i < text.length; i++) {
      while (length > 0 && text[i] !== needle[length]) length = table[length - 1];
      if (text[i] === needle[length] && ++length === needle.length) return i - length + 1;
    }
    return -1;
  };
}

// The search of a long needle steps through JavaScript, some eight times as slow.
const cost = (text: string, needle: string): number => (needle.length <= SHORT ? 1 : 8) * (text.length + needle.length);

/** Offset of the first place at or behind `from`; -1 when there is none. */
export function find(text: string, needle: string, from: number, budget: Budget): number {
  budget.read(cost(text, needle));
  return needle.length > text.length ? -1 : searcher(needle)(text, from);
}

const mirror = (text: string): string => text.split('').reverse().join('');

/** Offset of the last place; -1 when there is none. */
export function findLast(text: string, needle: string, budget: Budget): number {
  budget.read(cost(text, needle));
  if (needle.length <= SHORT) return text.lastIndexOf(needle);
  budget.write(text.length + needle.length);
  const at = searcher(mirror(needle))(mirror(text), 0);
  return at < 0 ? -1 : text.length - at - needle.length;
}

/** Offsets of the places that do not overlap, from the left. @param most at most so many */
export function findAll(text: string, needle: string, most: number, budget: Budget): number[] {
  budget.read(cost(text, needle));
  const search = searcher(needle);
  const places: number[] = [];
  for (let at = search(text, 0); at >= 0 && places.length < most; at = search(text, at + needle.length)) {
    budget.step(4);
    places.push(at);
  }
  return places;
}
