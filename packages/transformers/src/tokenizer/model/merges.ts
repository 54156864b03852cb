/** Merges of a BPE model: a table from two ids to the rank and the id of what they become. */
export class MergeTable {
  #slots = 1 << 10;
  #size = 0;
  /** Four numbers a slot: left id + 1 (0: free), right id, rank, merged id. */
  #table = new Int32Array(4 * this.#slots);

  /** A pair that comes twice has its last rank. */
  set(left: number, right: number, rank: number, merged: number): void {
    if (2 * ++this.#size > this.#slots) this.#grow();
    const at = this.#slot(left, right);
    this.#table.set([left + 1, right, rank, merged], at);
  }

  /** Rank of a pair, or -1. */
  rank(left: number, right: number): number {
    const at = this.#slot(left, right);
    return this.#table[at] === 0 ? -1 : this.#table[at + 2];
  }

  /** What a pair that has a rank becomes. */
  merged(left: number, right: number): number {
    return this.#table[this.#slot(left, right) + 3];
  }

  #slot(left: number, right: number): number {
    const table = this.#table;
    const mask = this.#slots - 1;
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const at = 4 * slot;
      if (table[at] === 0 || (table[at] === left + 1 && table[at + 1] === right)) return at;
    }
  }

  #grow(): void {
    const old = this.#table;
    this.#slots *= 2;
    this.#table = new Int32Array(4 * this.#slots);
    for (let at = 0; at < old.length; at += 4)
      if (old[at] !== 0) this.#table.set(old.subarray(at, at + 4), this.#slot(old[at] - 1, old[at + 1]));
  }
}

/** Words up to this many symbols are merged by looking at all pairs; longer ones with a heap. */
const shortWord = 48;

/** Merges the symbols of a word in place, the lowest rank first and the leftmost of equals, and returns their count. */
export function mergeWord(symbols: number[], table: MergeTable): number[] {
  if (symbols.length < 2) return symbols;
  return symbols.length <= shortWord ? mergeShort(symbols, table) : mergeLong(symbols, table);
}

function mergeShort(symbols: number[], table: MergeTable): number[] {
  const ranks: number[] = [];
  for (let i = 0; i + 1 < symbols.length; i++) ranks.push(table.rank(symbols[i], symbols[i + 1]));
  for (;;) {
    let best = -1;
    for (let i = 0; i < ranks.length; i++) if (ranks[i] >= 0 && (best < 0 || ranks[i] < ranks[best])) best = i;
    if (best < 0) return symbols;
    symbols[best] = table.merged(symbols[best], symbols[best + 1]);
    symbols.splice(best + 1, 1);
    ranks.splice(best, 1);
    if (best > 0) ranks[best - 1] = table.rank(symbols[best - 1], symbols[best]);
    if (best < ranks.length) ranks[best] = table.rank(symbols[best], symbols[best + 1]);
  }
}

/** Smallest number first. */
class Heap {
  readonly #items: number[] = [];

  push(item: number): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    for (let up = (at - 1) >> 1; at > 0 && items[up] > item; up = (at - 1) >> 1) {
      items[at] = items[up];
      at = up;
    }
    items[at] = item;
  }

  pop(): number | undefined {
    const items = this.#items;
    const [first] = items;
    const last = items.pop();
    if (last === undefined || items.length === 0) return first;
    let at = 0;
    for (let down = 1; down < items.length; down = 2 * at + 1) {
      if (down + 1 < items.length && items[down + 1] < items[down]) down++;
      if (items[down] >= last) break;
      items[at] = items[down];
      at = down;
    }
    items[at] = last;
    return first;
  }
}

function mergeLong(symbols: readonly number[], table: MergeTable): number[] {
  const ids = Int32Array.from(symbols); // -1 when merged away
  const next = Int32Array.from(symbols, (_, i) => i + 1);
  const previous = Int32Array.from(symbols, (_, i) => i - 1);
  const heap = new Heap();
  const places = symbols.length;
  const offer = (left: number) => {
    if (left < 0 || next[left] >= places) return;
    const rank = table.rank(ids[left], ids[next[left]]);
    if (rank >= 0) heap.push(rank * places + left); // rank first, then place
  };
  for (let i = 0; i + 1 < places; i++) offer(i);
  for (let item = heap.pop(); item !== undefined; item = heap.pop()) {
    const left = item % places;
    const right = next[left];
    if (ids[left] < 0 || right >= places) continue;
    if (table.rank(ids[left], ids[right]) !== Math.floor(item / places)) continue; // the pair has changed since
    ids[left] = table.merged(ids[left], ids[right]);
    ids[right] = -1;
    next[left] = next[right];
    if (next[left] < places) previous[next[left]] = left;
    offer(previous[left]);
    offer(left);
  }
  return Array.from(ids).filter((id) => id >= 0);
}
