// A machine for pickles of tensors: each opcode is a line, each step consumes at least a byte of the file, nothing
// recurses and no name is looked up anywhere but in the closed list of rebuild.ts.
import { opcodes as op } from './opcodes.js';
import { called, globalOf, PickleFault, PickleRefusal, storageOf } from './rebuild.js';
import { Dict, List, Tuple, type PickleValue, type Storage } from './values.js';

/** The bytes end before the pickle does. */
export class PickleEnd extends Error {}

const mark = Symbol('mark');

/** A pickle's value, and the bytes that it took. */
export interface Unpickled {
  readonly value: PickleValue;
  readonly bytes: number;
  /** The storages that it names, by key. */
  readonly storages: ReadonlyMap<string, Storage>;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

class Machine {
  readonly #view: DataView;
  readonly #stack: (PickleValue | typeof mark)[] = [];
  readonly #memo = new Map<number, PickleValue>();
  readonly #storages = new Map<string, Storage>();
  #at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): Unpickled {
    for (;;) {
      const code = this.#byte();
      if (code === op.STOP) return { value: this.#pop(), bytes: this.#at, storages: this.#storages };
      const step = steps.get(code);
      if (!step) throw new PickleRefusal(`it has opcode 0x${code.toString(16)}`);
      step(this);
    }
  }

  #take(length: number): number {
    const from = this.#at;
    if (from + length > this.bytes.length) throw new PickleEnd('the pickle is cut short');
    this.#at += length;
    return from;
  }

  #byte(): number {
    return this.bytes[this.#take(1)];
  }

  u8 = (): number => this.#byte();
  u16 = (): number => this.#view.getUint16(this.#take(2), true);
  u32 = (): number => this.#view.getUint32(this.#take(4), true);
  i32 = (): number => this.#view.getInt32(this.#take(4), true);
  f64 = (): number => this.#view.getFloat64(this.#take(8), false);
  skip = (length: number): number => this.#take(length);

  /** A whole number of any width, little endian, two's complement. */
  long(length: number): number | bigint {
    const from = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[from + i]);
    const signed = length > 0 ? BigInt.asIntN(8 * length, value) : 0n;
    return signed >= BigInt(Number.MIN_SAFE_INTEGER) && signed <= BigInt(Number.MAX_SAFE_INTEGER)
      ? Number(signed)
      : signed;
  }

  text(length: number): string {
    const from = this.#take(length);
    try {
      return utf8.decode(this.bytes.subarray(from, from + length));
    } catch {
      throw new PickleFault('a text is no UTF-8');
    }
  }

  /** A text up to the end of its line. */
  line(): string {
    const end = this.bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw new PickleEnd('the pickle is cut short');
    const text = this.text(end - this.#at);
    this.#at = end + 1;
    return text;
  }

  push(value: PickleValue): void {
    this.#stack.push(value);
  }

  mark(): void {
    this.#stack.push(mark);
  }

  #pop(): PickleValue {
    const value = this.#stack.pop();
    if (value === undefined || value === mark) throw new PickleFault('the stack is empty');
    return value;
  }

  pop(): PickleValue {
    return this.#pop();
  }

  /** The values above the last mark, which goes too. */
  popMarked(): PickleValue[] {
    const at = this.#stack.lastIndexOf(mark);
    if (at < 0) throw new PickleFault('there is no mark');
    const values = this.#stack.splice(at) as PickleValue[];
    return values.slice(1);
  }

  top(): PickleValue {
    const value = this.#stack.at(-1);
    if (value === undefined || value === mark) throw new PickleFault('the stack is empty');
    return value;
  }

  tuple(length: number): void {
    const items = Array.from({ length }, () => this.#pop()).reverse();
    this.push(new Tuple(items));
  }

  append(values: readonly PickleValue[]): void {
    const list = this.top();
    if (!(list instanceof List)) throw new PickleFault('something is added to what is no list');
    for (const value of values) list.items.push(value);
  }

  setItems(values: readonly PickleValue[]): void {
    const dict = this.top();
    if (!(dict instanceof Dict) || values.length % 2 !== 0) throw new PickleFault('an item is set of what is no dict');
    for (let i = 0; i < values.length; i += 2) dict.entries.set(values[i], values[i + 1]);
  }

  put(index: number): void {
    this.#memo.set(index, this.top());
  }

  memoize(): void {
    this.put(this.#memo.size);
  }

  get(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw new PickleFault('a value that was not kept is asked for');
    this.push(value);
  }

  stackGlobal(): void {
    const name = this.#pop();
    const module = this.#pop();
    if (typeof name !== 'string' || typeof module !== 'string') throw new PickleFault('a name is no text');
    this.push(globalOf(module, name));
  }

  storage(): void {
    const storage = storageOf(this.#pop());
    const { type, length } = this.#storages.get(storage.key) ?? storage;
    if (type !== storage.type || length !== storage.length)
      throw new PickleFault('two storages of the same key differ');
    this.#storages.set(storage.key, storage);
    this.push(storage);
  }

  reduce(): void {
    const args = this.#pop();
    this.push(called(this.#pop(), args));
  }

  /** Attributes of an OrderedDict, such as `_metadata`, say nothing about tensors. */
  build(): void {
    this.#pop();
    if (!(this.top() instanceof Dict)) throw new PickleFault('the state of something else than a dict is set');
  }
}

const steps: ReadonlyMap<number, (machine: Machine) => void> = new Map<number, (machine: Machine) => void>([
  [op.PROTO, (m) => void m.u8()],
  [op.FRAME, (m) => void m.skip(8)], // how many bytes follow: a hint for readers of streams
  [op.MARK, (m) => m.mark()],
  [op.NONE, (m) => m.push(null)],
  [op.NEWTRUE, (m) => m.push(true)],
  [op.NEWFALSE, (m) => m.push(false)],
  [op.BININT, (m) => m.push(m.i32())],
  [op.BININT1, (m) => m.push(m.u8())],
  [op.BININT2, (m) => m.push(m.u16())],
  [op.LONG1, (m) => m.push(m.long(m.u8()))],
  [op.BINFLOAT, (m) => m.push(m.f64())],
  [op.BINUNICODE, (m) => m.push(m.text(m.u32()))],
  [op.SHORT_BINUNICODE, (m) => m.push(m.text(m.u8()))],
  [op.BINSTRING, (m) => m.push(m.text(m.u32()))],
  [op.SHORT_BINSTRING, (m) => m.push(m.text(m.u8()))],
  [op.EMPTY_TUPLE, (m) => m.tuple(0)],
  [op.TUPLE, (m) => m.push(new Tuple(m.popMarked()))],
  [op.TUPLE1, (m) => m.tuple(1)],
  [op.TUPLE2, (m) => m.tuple(2)],
  [op.TUPLE3, (m) => m.tuple(3)],
  [op.EMPTY_LIST, (m) => m.push(new List())],
  [op.APPEND, (m) => m.append([m.pop()])],
  [op.APPENDS, (m) => m.append(m.popMarked())],
  [op.EMPTY_DICT, (m) => m.push(new Dict())],
  [op.SETITEM, (m) => m.setItems([m.pop(), m.pop()].reverse())],
  [op.SETITEMS, (m) => m.setItems(m.popMarked())],
  [op.BINPUT, (m) => m.put(m.u8())],
  [op.LONG_BINPUT, (m) => m.put(m.u32())],
  [op.MEMOIZE, (m) => m.memoize()],
  [op.BINGET, (m) => m.get(m.u8())],
  [op.LONG_BINGET, (m) => m.get(m.u32())],
  [op.GLOBAL, (m) => m.push(globalOf(m.line(), m.line()))],
  [op.STACK_GLOBAL, (m) => m.stackGlobal()],
  [op.BINPERSID, (m) => m.storage()],
  [op.REDUCE, (m) => m.reduce()],
  [op.BUILD, (m) => m.build()],
]);

/**
 * The value of the pickle that `bytes` begin with.
 * @throws PickleEnd when they end before it does, PickleFault for what does not fit together, PickleRefusal for opcodes
 *   and names that make no tensors
 */
export const unpickle = (bytes: Uint8Array): Unpickled => new Machine(bytes).run();
