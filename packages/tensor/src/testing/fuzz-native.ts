// Calls of a driver that no program makes: every command with tensors of exactly the elements that the rules ask for,
// so that a sanitizer sees a step past them, and then some fields changed to what a stranger would try.
import { dtypeBytes, dtypeFromCode, dtypes, type DType } from '../dtype.js';
import { commandCodes, encode } from '../driver/encode.js';
import type { Driver } from '../driver/driver.js';
import { evaluate, parseExpression, type Scope } from '../driver/expression.js';
import { rules, type Kind, type Rules, type TensorRule } from '../driver/rules.js';
import { commandNames, commands, type CommandName, type Fields, type FieldType } from '../driver/schema.js';

/** Numbers from 0 up to, without, 1. */
export type Random = () => number;

/** A tensor before it has memory: its content, and where in its buffer it begins and ends. */
interface Planned {
  /** Which of the call's buffers; others than its own are aliases, or do not exist. */
  buffer: number;
  offset: number;
  bytes: number;
  dtypeCode: number;
}

interface Plan {
  readonly command: CommandName;
  readonly args: Record<string, unknown>;
  /** Content of each buffer. */
  readonly buffers: readonly Uint8Array[];
}

const hostile = [0, -1, 1, 0.5, 3, 255, 65_536, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53, -(2 ** 31), 1e300, NaN, Infinity]; // prettier-ignore
const failures = ['out_of_memory', 'file', 'command', 'closed', 'device'];

class Draw {
  constructor(private readonly random: Random) {}
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }
  between(least: number, largest: number): number {
    return least + this.below(largest - least + 1);
  }
  chance(share: number): boolean {
    return this.random() < share;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

/** Sizes that go together, by field name; others are small. */
const sizes: Readonly<Record<string, (draw: Draw, known: Readonly<Record<string, unknown>>) => number>> = {
  headDim: (draw) => draw.pick([1, 3, 8, 16, 24, 33, 64]),
  valueDim: (draw, { headDim }) => (draw.chance(0.6) ? Number(headDim) : draw.pick([1, 8, 16, 24])),
  rotaryOffset: (draw) => (draw.chance(0.7) ? 0 : draw.below(6)),
  scalingLength: (draw) => draw.between(1, 5),
  numHeads: (draw) => draw.pick([0, 1, 2, 4, 6]),
  numKvHeads: (draw, { numHeads }) => (draw.chance(0.5) ? Math.max(1, Number(numHeads)) : 1),
  rotaryDim: (draw, { headDim }) => 2 * draw.between(1, Math.max(1, Math.floor(Number(headDim) / 2))),
  blockSize: (draw) => draw.pick([2, 8, 16, 64, 128]),
  nestedBlockSize: (draw) => draw.pick([1, 2, 256]),
  maxBlocks: (draw) => draw.between(1, 4),
  tokens: (draw) => draw.between(0, 9),
  sequences: (draw) => draw.between(0, 3),
  window: (draw) => (draw.chance(0.6) ? 0 : draw.between(1, 20)),
  qOffset: () => 0,
  qGroupStride: (_, { numHeads, numKvHeads, headDim }) =>
    Math.floor(Number(numHeads) / Number(numKvHeads)) * Number(headDim),
  kOffset: (_, { numHeads, headDim }) => Number(numHeads) * Number(headDim),
  vOffset: (_, { numHeads, numKvHeads, headDim }) => (Number(numHeads) + Number(numKvHeads)) * Number(headDim),
  kvStride: (_, { headDim, valueDim = 0 }) => Math.max(Number(headDim), Number(valueDim)),
  rowStride: (draw, { numHeads, numKvHeads, headDim, valueDim = headDim }) =>
    headDim === undefined
      ? draw.pick([16, 130, 700])
      : (Number(numHeads) + Number(numKvHeads)) * Number(headDim) +
        Number(numKvHeads) * Math.max(Number(headDim), Number(valueDim)),
  xRowStride: (draw) => draw.pick([16, 130, 700]),
  stride: (draw) => draw.pick([1, 8, 64, 130]),
  weightStride: (draw) => draw.pick([0, 1, 64]),
  group: (draw) => draw.between(1, 3),
  groupStride: (_, { group, width }) => Number(group) * Number(width),
  count: (draw, { offset }) => draw.between(0, typeof offset === 'number' ? 3 : 300),
  k: (draw) => draw.pick([1, 5, 16, 64, 65, 128, 192]),
  n: (draw) => draw.between(0, 40),
  rows: (draw) => draw.pick([0, 1, 2, 3, 5, 17, 33]),
  width: (draw) => draw.pick([1, 3, 8, 16, 17, 64, 130]),
  vocab: (draw) => draw.between(1, 12),
  distances: (draw) => draw.between(0, 40),
  biasOffset: (draw) => draw.between(0, 50),
  historyCapacity: (draw) => draw.between(0, 6),
  gated: (draw) => Number(draw.chance(0.3)),
  experts: (draw) => draw.between(1, 5),
  choices: (draw, { experts }) => draw.between(1, Math.min(3, Number(experts ?? 3))),
  groups: (draw, { experts }) => (Number(experts) === 4 ? draw.between(1, 2) : 1),
  topGroups: (draw, { groups }) => draw.between(1, Number(groups)),
  seed: (draw) => draw.below(2 ** 31),
};

class Maker {
  readonly draw: Draw;
  readonly buffers: Uint8Array[] = [];

  constructor(
    random: Random,
    private readonly content: 'random' | 'zero',
  ) {
    this.draw = new Draw(random);
  }

  plan(): Plan {
    const command = this.draw.pick(commandNames);
    const args = this.args(commands[command], rules[command], []);
    for (let changes = this.draw.pick([0, 0, 1, 1, 1, 2]); changes > 0; changes--) this.spoil(args, commands[command]);
    return { command, args, buffers: this.buffers };
  }

  args(fields: Fields, own: Rules, outer: readonly Record<string, unknown>[]): Record<string, unknown> {
    const values: Record<string, unknown> = {};
    for (const [name, type] of Object.entries(fields)) {
      if (type === 'int') values[name] = this.integer(name, own, values);
      else if (type === 'float') values[name] = this.draw.pick([0, 1, 1, 0.125, 6, 30]);
      else if (type === 'tensor?') values[name] = this.draw.chance(0.4) ? 'later' : undefined;
      else if (type === 'tensor') values[name] = 'later';
    }
    for (const [name, type] of Object.entries(fields)) {
      if (typeof type === 'string') continue;
      const length = this.length(values, type.most !== undefined);
      const around = [values, ...outer];
      const items = Array.from({ length }, () => this.args(type.repeat, own.items![name], around));
      if (values.gated === 1 && !type.most)
        values[name] = [items[0], { ...this.args(type.repeat, own.items![name], around) }];
      else values[name] = items;
    }
    const tensors = this.rulesOf(own, values, outer);
    for (const [name, type] of Object.entries(fields)) {
      const rule = tensors.get(name) ?? (['any'] as const);
      const wanted = values[name] === 'later' || (type === 'tensor?' && tensors.has(name) && this.isRequired(own, name, values, outer)); // prettier-ignore
      if (wanted) values[name] = this.tensor(name, rule, [values, ...outer]);
    }
    return values;
  }

  /** Items of a list; of a long one as many as there are experts, or twice that. */
  private length(values: Readonly<Record<string, unknown>>, long: boolean): number {
    const few = values.gated === 1 ? 2 : this.draw.between(1, long ? 2 : 3);
    return long ? Number(values.experts) * (values.scores ? 1 : few) : few;
  }

  private integer(name: string, own: Rules, known: Readonly<Record<string, unknown>>): number {
    const range = own.integers?.[name];
    if (range && range[1] < 100 && name !== 'choices') return this.draw.between(range[0], range[1]);
    return sizes[name]?.(this.draw, known) ?? this.draw.below(5);
  }

  private isRequired(
    own: Rules,
    name: string,
    ...[values, outer]: [Record<string, unknown>, readonly Record<string, unknown>[]]
  ): boolean {
    // prettier-ignore
    return (own.cases ?? []).some(
      ({ when, tensors }) =>
        tensors && Object.hasOwn(tensors, name) && evaluate(parseExpression(when), scopeOf([values, ...outer])) !== 0,
    );
  }

  /** The rule of each tensor under these values. */
  private rulesOf(own: Rules, values: Record<string, unknown>, outer: readonly Record<string, unknown>[]) {
    const found = new Map<string, TensorRule>(Object.entries(own.tensors ?? {}));
    for (const { when, tensors = {} } of own.cases ?? []) {
      if (evaluate(parseExpression(when), scopeOf([values, ...outer])) === 0) continue;
      for (const [name, rule] of Object.entries(tensors)) found.set(name, rule);
    }
    return found;
  }

  private tensor(name: string, [kind, count]: TensorRule, levels: readonly Record<string, unknown>[]): Planned {
    const dtype = this.dtype(name, kind, levels);
    const elements =
      count === undefined ? this.loose(name, levels) : Math.min(evaluate(parseExpression(count), scopeOf(levels)), 1e5);
    const content = new Uint8Array(Math.max(elements, 1) * dtypeBytes(dtype));
    if (this.content === 'random') this.fill(name, content, dtype);
    this.buffers.push(content);
    const index = this.buffers.length - 1;
    return { buffer: index, offset: 0, bytes: elements * dtypeBytes(dtype), dtypeCode: dtypes[dtype].code };
  }

  private dtype(name: string, kind: Kind, levels: readonly Record<string, unknown>[]): DType {
    if (kind === 'act' || kind === 'logits') return 'f32';
    const shared = levels[1]?.weightDtype;
    if (kind === 'float' && name === 'weight' && shared !== undefined) return dtypeFromCode(shared as number);
    if (kind === 'float') return this.draw.pick(['f32', 'f16', 'bf16']);
    if (kind !== 'any') return kind;
    const other = (levels[0].x ?? levels[0].keyCache) as Planned | 'later' | undefined;
    return typeof other === 'object' && this.draw.chance(0.8) ? dtypeFromCode(other.dtypeCode) : this.draw.pick(Object.keys(dtypes) as DType[]); // prettier-ignore
  }

  /** Elements of a tensor that no rule counts: mostly those of another one. */
  private loose(name: string, levels: readonly Record<string, unknown>[]): number {
    const [{ x, src, keyCache, rows, width, maxBlocks }] = levels as Record<string, Planned & number>[];
    if (name === 'valueCache' && keyCache) return keyCache.bytes / dtypeBytes(dtypeFromCode(keyCache.dtypeCode));
    if (name === 'blockTables') return Number(maxBlocks) * this.draw.between(1, 3);
    const twin = x ?? src;
    if (name === 'out' && twin && rows === undefined) return twin.bytes / dtypeBytes(dtypeFromCode(twin.dtypeCode));
    return rows === undefined ? this.draw.between(0, 300) : Number(width) * this.draw.between(1, 6);
  }

  /** Indices and lengths are mostly such as lead somewhere. */
  private fill(name: string, content: Uint8Array, dtype: DType): void {
    const { draw } = this;
    if (dtype === 'i32') {
      const list = new Int32Array(content.buffer);
      for (let i = 0; i < list.length; i++) list[i] = draw.chance(0.97) ? draw.below(4) : draw.pick([-1, 7, 2 ** 31 - 1, -(2 ** 31)]); // prettier-ignore
      if (name === 'sequenceStarts') list.sort();
      if (name === 'sequenceStarts' && list.length > 0) list[0] = 0;
      if (name === 'contextLengths') for (let i = 0; i < list.length; i++) list[i] += draw.between(2, 20);
    } else if (dtype === 'f32') {
      const list = new Float32Array(content.buffer);
      for (let i = 0; i < list.length; i++) list[i] = draw.chance(0.99) ? draw.below(2001) / 500 - 2 : draw.pick([NaN, Infinity, -Infinity, 1e38, 1e-45]); // prettier-ignore
    } else for (let i = 0; i < content.length; i++) content[i] = draw.below(256);
  }

  /** Changes one field to something that nobody means. */
  private spoil(args: Record<string, unknown>, fields: Fields): void {
    const { draw } = this;
    const name = draw.pick(Object.keys(fields));
    const type: FieldType = fields[name];
    if (type === 'int' || type === 'float') args[name] = draw.pick(hostile);
    else if (typeof type !== 'string') {
      const list = args[name] as Record<string, unknown>[];
      if (draw.chance(0.1)) list.length = 0;
      else if (list.length > 0) this.spoil(draw.pick(list), type.repeat);
    } else if (type === 'tensor?' && draw.chance(0.2)) args[name] = undefined;
    else if (args[name]) this.spoilTensor(args[name] as Planned);
  }

  private spoilTensor(tensor: Planned): void {
    const { draw } = this;
    const step = dtypeBytes(dtypeFromCode(tensor.dtypeCode) ?? 'f32'); // it may be spoilt already
    const changes: (() => void)[] = [
      () => (tensor.bytes -= step),
      () => (tensor.bytes = draw.pick([0, ...hostile])),
      () => (tensor.offset = draw.pick([step, 1, ...hostile])),
      () => (tensor.dtypeCode = draw.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, -1, 0.5])),
      () => (tensor.buffer = draw.below(this.buffers.length)),
      () => (tensor.buffer = draw.pick([-2, 0.5, 2 ** 40])),
    ];
    draw.pick(changes)();
  }
}

function scopeOf(levels: readonly Record<string, unknown>[]): Scope {
  const value = (name: string) => levels.find((level) => Object.hasOwn(level, name))?.[name];
  return {
    value: (name) => {
      const found = value(name);
      if (Array.isArray(found)) return found.length;
      return typeof found === 'number' ? found : Number(found !== undefined);
    },
    tensor: () => ({ bytes: 0, dtypeCode: 0, count: 0 }),
    list: (path) => {
      const [list, field] = path.split('.');
      return (levels[0][list] as Record<string, number>[]).map((item) => item[field]);
    },
  };
}

/** The plan's tensors as references to memory of the driver. */
function bound(value: unknown, ids: readonly number[]): unknown {
  if (Array.isArray(value)) return value.map((item) => bound(item, ids));
  if (value === null || typeof value !== 'object') return value;
  if ('dtypeCode' in value) {
    const planned = value as Planned;
    return { ...planned, buffer: ids[planned.buffer] ?? planned.buffer };
  }
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, bound(item, ids)]));
}

/** What a driver may answer. @throws any other error */
function accept(error: unknown): string {
  const { code, message } = error as { code?: string; message: string };
  if (error instanceof Error && code !== undefined && failures.includes(code)) return message;
  throw error;
}

/**
 * Makes one call of a command out of random numbers, runs it and gives its memory back. The same numbers give the same
 * call.
 * @param content what tensors hold. `zero` is for GPUs, which trust the indices inside tensors; default `random`
 * @returns what the driver said against it, undefined when it ran
 * @throws what is no {@link DriverFailure}
 */
export async function fuzzNative(
  driver: Driver,
  random: Random,
  content: 'random' | 'zero' = 'random',
): Promise<string | undefined> {
  const { command, args, buffers } = new Maker(random, content).plan();
  const ids = buffers.map((content) => {
    const id = driver.alloc(content.byteLength);
    driver.write(id, 0, content);
    return id;
  });
  let refusal: string | undefined;
  try {
    driver.submit(commandCodes[command], encode(command, bound(args, ids) as never));
  } catch (error) {
    refusal = accept(error);
  }
  for (const id of ids) driver.release(id);
  await driver.flush().catch((error: unknown) => (refusal ??= accept(error)));
  return refusal === undefined ? undefined : `${command}: ${refusal}`;
}
