// Finds added tokens in a text as the tokenizers library does it: the automaton of Aho and Corasick (1975), which reads
// a text once however many tokens begin alike, and of what it meets takes the leftmost token, and of these the longest.
import { Trie } from './model/trie.js';

interface Automaton {
  /** Of each node: that of the longest proper end of its text that is in the trie. */
  readonly failures: Int32Array;
  readonly depths: Int32Array;
  /** The longest token that its text ends with: its id, or -1, and its length. */
  readonly ids: Int32Array;
  readonly lengths: Int32Array;
}

/** Finds tokens in a text: the leftmost, and of these the longest. */
export class TokenFinder {
  readonly #trie: Trie;
  readonly #firstUnits = new Uint8Array(1 << 16);
  #automaton: Automaton | undefined;
  #empty = true;

  /** @param trieNodes characters of the tokens at most, shared beginnings counted once */
  constructor(trieNodes: number) {
    this.#trie = new Trie(trieNodes);
  }

  /** Of equal texts the first counts. */
  add(text: string, id: number): void {
    if (text === '' || !this.#trie.setNew(text, id)) return;
    this.#firstUnits[text.charCodeAt(0)] = 1;
    this.#automaton = undefined;
    this.#empty = false;
  }

  /** [start, end, id, ...] */
  find(text: string): number[] {
    const found: number[] = [];
    for (let at = this.#skip(text, 0); at < text.length;) {
      const match = this.#first(text, at);
      if (!match) break;
      found.push(match.start, match.end, match.id);
      at = this.#skip(text, match.end);
    }
    return found;
  }

  /** The next place at which a token may begin. */
  #skip(text: string, from: number): number {
    if (this.#empty) return text.length;
    let at = from;
    while (at < text.length && this.#firstUnits[text.charCodeAt(at)] === 0) at++;
    return at;
  }

  /** The leftmost of the longest tokens from a place on. */
  #first(text: string, from: number): { start: number; end: number; id: number } | undefined {
    const { failures, depths, ids, lengths } = (this.#automaton ??= automatonOf(this.#trie));
    let match: { start: number; end: number; id: number } | undefined;
    for (let at = from, node = 0; at < text.length;) {
      node = step(this.#trie, failures, node, text.charCodeAt(at++));
      // What the text still may be the beginning of starts behind the match: no longer or earlier one can come.
      if (match && at - depths[node] > match.start) break;
      const start = at - lengths[node];
      if (ids[node] >= 0 && (!match || start <= match.start)) match = { start, end: at, id: ids[node] };
      else if (node === 0) at = this.#skip(text, at);
    }
    return match;
  }
}

/** The node of the longest end of a node's text and one more unit that is in the trie. */
function step(trie: Trie, failures: Int32Array, from: number, unit: number): number {
  let node = from;
  let next = trie.child(node, unit);
  while (next < 0 && node !== 0) {
    node = failures[node];
    next = trie.child(node, unit);
  }
  return Math.max(0, next);
}

function automatonOf(trie: Trie): Automaton {
  const { parents, units } = trie.edges();
  const count = parents.length;
  const failures = new Int32Array(count);
  const ids = new Int32Array(count).fill(-1);
  const lengths = new Int32Array(count);
  const depths = new Int32Array(count);
  // A parent has a lower number than its children.
  for (let node = 1; node < count; node++) depths[node] = depths[parents[node]] + 1;
  for (const node of byDepth(depths)) {
    if (node === 0) continue;
    const parent = parents[node];
    failures[node] = parent === 0 ? 0 : step(trie, failures, failures[parent], units[node]);
    const own = trie.value(node);
    ids[node] = own >= 0 ? own : ids[failures[node]];
    lengths[node] = own >= 0 ? depths[node] : lengths[failures[node]];
  }
  return { failures, depths, ids, lengths };
}

/** Nodes from the shallowest to the deepest. */
function byDepth(depths: Int32Array): Int32Array {
  const deepest = depths.reduce((most, depth) => Math.max(most, depth), 0);
  const starts = new Int32Array(deepest + 2);
  for (const depth of depths) starts[depth + 1]++;
  for (let depth = 1; depth < starts.length; depth++) starts[depth] += starts[depth - 1];
  const order = new Int32Array(depths.length);
  depths.forEach((depth, node) => (order[starts[depth]++] = node));
  return order;
}
