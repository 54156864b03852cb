import { CheckpointError } from '@q/config';

/** A trie of texts over UTF-16 units, in flat tables. Node 0 is the root. */
export class Trie {
  /** @param most nodes at most, for {@link set} and {@link setNew} */
  constructor(readonly most: number) {}

  #slots = 1 << 12;
  /** Two numbers a slot: parent node * 65536 + unit + 1 as a double (0: free), child node. */
  #keys = new Float64Array(this.#slots);
  #children = new Int32Array(this.#slots);
  /** Value of each node, -1 for none. */
  #values = new Int32Array(1 << 12).fill(-1);
  #nodes = 1;

  /** A text that comes twice has its last value. */
  set(text: string, value: number): void {
    let node = 0;
    for (let i = 0; i < text.length; i++) node = this.#childOrNew(node, text.charCodeAt(i));
    this.#values[node] = value;
  }

  /** Sets the value of a text that has none; whether it had none. */
  setNew(text: string, value: number): boolean {
    let node = 0;
    for (let i = 0; i < text.length; i++) node = this.#childOrNew(node, text.charCodeAt(i));
    if (this.#values[node] >= 0) return false;
    this.#values[node] = value;
    return true;
  }

  /** Of each node its parent, which has a lower number, and the unit that leads from there to it. */
  edges(): { readonly parents: Int32Array; readonly units: Uint16Array } {
    const parents = new Int32Array(this.#nodes);
    const units = new Uint16Array(this.#nodes);
    for (let slot = 0; slot < this.#slots; slot++) {
      const key = this.#keys[slot];
      if (key === 0) continue;
      parents[this.#children[slot]] = Math.floor((key - 1) / 65536);
      units[this.#children[slot]] = (key - 1) % 65536;
    }
    return { parents, units };
  }

  /** Value of a text, -1 for none. */
  get(text: string): number {
    let node = 0;
    for (let i = 0; i < text.length && node >= 0; i++) node = this.child(node, text.charCodeAt(i));
    return node < 0 ? -1 : this.#values[node];
  }

  /** The child of a node, or -1. */
  child(node: number, unit: number): number {
    const key = node * 65536 + unit + 1;
    const slot = this.#slot(key, node, unit);
    return this.#keys[slot] === key ? this.#children[slot] : -1;
  }

  /** Value of a node, -1 for none. */
  value(node: number): number {
    return this.#values[node];
  }

  #slot(key: number, node: number, unit: number): number {
    const mask = this.#slots - 1;
    let hash = Math.imul(node, 0x9e3779b1) ^ Math.imul(unit, 0x85ebca6b);
    hash ^= hash >>> 15;
    let slot = hash & mask;
    while (this.#keys[slot] !== 0 && this.#keys[slot] !== key) slot = (slot + 1) & mask;
    return slot;
  }

  #childOrNew(node: number, unit: number): number {
    const key = node * 65536 + unit + 1;
    let slot = this.#slot(key, node, unit);
    if (this.#keys[slot] === key) return this.#children[slot];
    if (2 * this.#nodes > this.#slots) {
      this.#grow();
      slot = this.#slot(key, node, unit);
    }
    this.#keys[slot] = key;
    return (this.#children[slot] = this.#nodes++);
  }

  #grow(): void {
    if (this.#nodes > this.most)
      throw new CheckpointError('tokenizer', `the tokens have more than ${this.most} characters`, {
        why: 'beginnings that several share counted once',
      });
    const [keys, children] = [this.#keys, this.#children];
    this.#slots *= 2;
    this.#keys = new Float64Array(this.#slots);
    this.#children = new Int32Array(this.#slots);
    const values = new Int32Array(this.#slots).fill(-1);
    values.set(this.#values);
    this.#values = values;
    keys.forEach((key, i) => {
      if (key === 0) return;
      const node = Math.floor((key - 1) / 65536);
      const slot = this.#slot(key, node, (key - 1) % 65536);
      this.#keys[slot] = key;
      this.#children[slot] = children[i];
    });
  }
}
