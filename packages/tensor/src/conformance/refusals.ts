// Arguments that no device may follow: each is refused as a failure that names the command and the field, and the queue
// goes on. What the rules say is in driver/rules.ts.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { CommandArgs, CommandName, TensorRef } from '../driver/schema.js';
import { dtypes, type DType } from '../dtype.js';
import { fill } from '../ops/elementwise.js';
import { fail, type Conformance, type ConformanceCase } from './harness.js';

interface Make {
  readonly backend: Backend;
  /** A tensor of `count` elements: activations, or of another dtype. */
  of(count: number, dtype?: DType): TensorRef;
}

type Refusal<N extends CommandName> = readonly [
  what: string,
  field: RegExp,
  command: N,
  arguments_: (make: Make) => CommandArgs<N>,
];

const refusal = <N extends CommandName>(
  what: string,
  field: RegExp,
  command: N,
  make: (make: Make) => CommandArgs<N>,
): Refusal<CommandName> => [what, field, command, make] as unknown as Refusal<CommandName>;

const as = (ref: TensorRef, dtype: DType, bytes = ref.bytes, offset = ref.offset): TensorRef => ({
  ...ref,
  dtypeCode: dtypes[dtype].code,
  bytes,
  offset,
});

const dense = (make: Make, n: number, k: number): CommandArgs<'linear'>['parts'][number] => ({
  kind: 0,
  n,
  weight: make.of(n * k),
  bias: undefined,
  absmax: undefined,
  nestedAbsmax: undefined,
  nestedCode: undefined,
  offset: undefined,
  blockSize: 0,
  nestedBlockSize: 0,
  quantType: 0,
  computeDtype: 0,
  threshold: 0,
});

const linear = (
  make: Make,
  args: Partial<CommandArgs<'linear'>> = {},
  part: Partial<CommandArgs<'linear'>['parts'][number]> = {},
): CommandArgs<'linear'> => ({
  x: make.of(16),
  out: make.of(16),
  residual: undefined,
  rows: 2,
  k: 8,
  activation: 0,
  gated: 0,
  limit: 0,
  upOffset: 0,
  parts: [{ ...dense(make, 8, 8), ...part }],
  ...args,
});

const attention = (make: Make, args: Partial<CommandArgs<'attention'>> = {}): CommandArgs<'attention'> => ({
  qkv: make.of(3 * 96),
  keyCache: make.of(2 * 16 * 32),
  valueCache: make.of(2 * 16 * 32),
  out: make.of(3 * 32),
  sequenceStarts: make.of(2, 'i32'),
  contextLengths: make.of(1, 'i32'),
  blockTables: make.of(2, 'i32'),
  alibiSlopes: undefined,
  distanceBias: undefined,
  sinks: undefined,
  tokens: 3,
  sequences: 1,
  maxQuery: 3,
  maxContext: 3,
  numHeads: 1,
  numKvHeads: 1,
  headDim: 32,
  valueDim: 32,
  scale: 1,
  softcap: 0,
  causal: 1,
  window: 0,
  distances: 0,
  biasOffset: 0,
  qOffset: 0,
  qGroupStride: 32,
  rowStride: 96,
  blockSize: 16,
  maxBlocks: 2,
  ...args,
});

const norm = (make: Make, args: Partial<CommandArgs<'rmsNorm'>> = {}): CommandArgs<'rmsNorm'> => ({
  x: make.of(12),
  residual: undefined,
  sum: undefined,
  weight: make.of(4),
  out: make.of(12),
  rows: 3,
  width: 4,
  eps: 1e-5,
  weightOffset: 0,
  ...args,
});

const sample = (make: Make, args: Partial<CommandArgs<'sample'>> = {}): CommandArgs<'sample'> => ({
  logits: make.of(20),
  out: make.of(2, 'i32'),
  floats: make.of(8, 'f32'),
  ints: make.of(8, 'i32'),
  counters: make.of(2, 'i32'),
  history: undefined,
  historyLengths: undefined,
  rows: 2,
  width: 10,
  historyCapacity: 0,
  ...args,
});

const int8 = (make: Make, rows: number, width: number): CommandArgs<'quantizeInt8'> => ({
  x: make.of(16),
  codes: make.of(16, 'i8'),
  absmax: make.of(2048, 'f32'),
  rows,
  width,
});

const bnb4 = (make: Make, args: Partial<CommandArgs<'dequantize4bit'>> = {}): CommandArgs<'dequantize4bit'> => ({
  codes: make.of(64, 'u8'),
  absmax: make.of(2, 'f32'),
  nestedAbsmax: undefined,
  nestedCode: undefined,
  offset: undefined,
  out: make.of(128),
  count: 128,
  blockSize: 64,
  nestedBlockSize: 0,
  quantType: 0,
  ...args,
});

/** A tensor that begins inside another. */
const within = (outer: TensorRef, bytes: number, offset: number): TensorRef => ({
  ...outer,
  bytes,
  offset: outer.offset + offset,
});

const headNorm = (
  make: Make,
  part: Partial<CommandArgs<'headNorm'>['parts'][number]> = {},
): CommandArgs<'headNorm'> => ({
  x: make.of(20),
  rows: 2,
  rowStride: 10,
  centred: 0,
  eps: 1e-5,
  weightOffset: 0,
  parts: [{ weight: make.of(4), weightStride: 0, offset: 1, count: 2, width: 4, group: 1, groupStride: 4, ...part }],
});

const concat = (
  make: Make,
  part: Partial<CommandArgs<'concatColumns'>['parts'][number]> = {},
): CommandArgs<'concatColumns'> => ({
  out: make.of(24),
  rows: 2,
  rowStride: 12,
  parts: [{ x: make.of(12), xOffset: 2, xStride: 0, xRowStride: 6, offset: 0, stride: 4, count: 3, width: 4, ...part }],
});

const sizes = [
  refusal('products that wrap to nothing', /rows|width|x/, 'quantizeInt8', (m) => int8(m, 2048, 2 ** 53)),
  refusal('products of sizes that are allowed, beyond the tensor', /x/, 'quantizeInt8', (m) =>
    int8(m, 2 ** 31 - 1, 2 ** 31 - 1),
  ),
  refusal('scales too short for the rows', /absmax/, 'quantizeInt8', (m) => ({
    ...int8(m, 4, 4),
    absmax: m.of(3, 'f32'),
  })),
  refusal('a k that wraps', /k/, 'linear', (m) => linear(m, { k: 2 ** 53, rows: 512 })),
  refusal('an n that no weight has', /parts|weight|out/, 'linear', (m) => linear(m, {}, { n: 2 ** 31 - 1 })),
  refusal('a bias too short', /bias/, 'linear', (m) => linear(m, {}, { bias: m.of(7) })),
  refusal('no parts', /parts/, 'linear', (m) => linear(m, { parts: [] })),
  refusal('a gate without up', /gated/, 'linear', (m) => linear(m, { gated: 1 })),
  refusal('a residual too short', /residual/, 'linear', (m) => linear(m, { residual: m.of(15) })),
  refusal('k of no values', /k/, 'linear', (m) => linear(m, { k: 0 })),
  refusal('rows without end', /rows/, 'rmsNorm', (m) => norm(m, { rows: 2 ** 53 })),
  refusal('empty rows', /width/, 'rmsNorm', (m) => norm(m, { rows: 2 ** 31 - 1, width: 0 })),
  refusal('negative rows', /rows/, 'softmax', (m) => ({ x: m.of(4), out: m.of(4), rows: -1, width: 4 })),
  refusal('rows that are no number', /rows/, 'softmax', (m) => ({ x: m.of(4), out: m.of(4), rows: NaN, width: 4 })),
  refusal('half a row', /rows/, 'softmax', (m) => ({ x: m.of(4), out: m.of(4), rows: 0.5, width: 4 })),
  refusal('a count above the tensor', /a/, 'add', (m) => ({ a: m.of(4), b: m.of(4), out: m.of(4), count: 5 })),
  refusal('a stride out of the tensor', /b/, 'multiply', (m) => ({
    a: m.of(8),
    b: m.of(8),
    out: m.of(8),
    rows: 2,
    width: 4,
    aStride: 4,
    bStride: 5,
  })),
  refusal('a table shorter than its vocabulary', /table/, 'embedding', (m) => ({
    table: m.of(12),
    ids: m.of(2, 'i32'),
    out: m.of(8),
    rows: 2,
    width: 4,
    vocab: 4,
    scale: 1,
  })),
  refusal('blocks of nothing', /blockSize/, 'dequantize4bit', (m) => bnb4(m, { blockSize: 0 })),
  refusal('fewer scales than blocks', /absmax/, 'dequantize4bit', (m) => bnb4(m, { absmax: m.of(1, 'f32') })),
  refusal('nested scales without their code', /nestedCode/, 'dequantize4bit', (m) =>
    bnb4(m, { absmax: m.of(2, 'u8'), nestedAbsmax: m.of(1, 'f32'), nestedBlockSize: 256, offset: m.of(1, 'f32') }),
  ),
  refusal('heads that do not divide', /numHeads/, 'attention', (m) =>
    attention(m, { numHeads: 3, numKvHeads: 2, out: m.of(3 * 96), keyCache: m.of(2048), valueCache: m.of(2048) }),
  ),
  refusal('queries past their row', /qOffset/, 'attention', (m) => attention(m, { qOffset: 70 })),
  refusal('a head of 2^31 - 1', /out|headDim|keyCache|qOffset/, 'attention', (m) =>
    attention(m, { headDim: 2 ** 31 - 1 }),
  ),
  refusal('caches that differ', /valueCache/, 'attention', (m) => attention(m, { valueCache: m.of(16 * 32) })),
  refusal('a cache of less than a block', /keyCache/, 'attention', (m) =>
    attention(m, { keyCache: m.of(32), valueCache: m.of(32) }),
  ),
  refusal('a bias too short', /distanceBias/, 'attention', (m) =>
    attention(m, { distanceBias: m.of(8, 'f32'), distances: 9 }),
  ),
  refusal('a bias of no distances', /distances/, 'attention', (m) => attention(m, { distanceBias: m.of(8, 'f32') })),
  refusal('a bias offset past 2^30', /biasOffset/, 'attention', (m) =>
    attention(m, { distanceBias: m.of(8, 'f32'), distances: 8, biasOffset: 2 ** 30 + 1 }),
  ),
  refusal('sinks too short', /sinks/, 'attention', (m) => attention(m, { sinks: m.of(0, 'f32') })),
  refusal('value rows that are fewer than keys', /valueCache/, 'attention', (m) =>
    attention(m, { valueDim: 16, valueCache: m.of(16 * 16), out: m.of(3 * 16) }),
  ),
  refusal('no values', /valueDim/, 'attention', (m) => attention(m, { valueDim: 0 })),
  refusal('heads past their row', /offset/, 'headNorm', (m) => headNorm(m, { count: 3 })),
  refusal('heads of nothing', /width/, 'headNorm', (m) => headNorm(m, { width: 0 })),
  refusal('groups within each other', /groupStride/, 'headNorm', (m) => headNorm(m, { count: 2, groupStride: 3 })),
  refusal('half a group', /count/, 'headNorm', (m) => headNorm(m, { count: 1, group: 2 })),
  refusal('norm weights too short', /weight/, 'headNorm', (m) => headNorm(m, { count: 2, weightStride: 5 })),
  refusal('no norms', /parts/, 'headNorm', (m) => ({ ...headNorm(m), parts: [] })),
  refusal('pieces past the rows that they come from', /xOffset/, 'concatColumns', (m) => concat(m, { xOffset: 3 })),
  refusal('pieces past their row', /offset/, 'concatColumns', (m) => concat(m, { offset: 9 })),
  refusal('pieces over each other', /stride/, 'concatColumns', (m) => concat(m, { count: 2, stride: 3 })),
  refusal('attention without heads', /numHeads/, 'attention', (m) => attention(m, { numHeads: 0 })),
  refusal('sampling options too short', /floats/, 'sample', (m) => sample(m, { floats: m.of(7, 'f32') })),
  refusal('a history without lengths', /history/, 'sample', (m) =>
    sample(m, { history: m.of(4, 'i32'), historyCapacity: 2 }),
  ),
  refusal('another number of bytes', /out/, 'copy', (m) => ({ src: m.of(4), out: m.of(3) })),
];

const values = [
  refusal('a negative threshold', /threshold/, 'linear', (m) => linear(m, {}, { threshold: -1 })),
  refusal('a threshold that is no number', /threshold/, 'linear', (m) => linear(m, {}, { threshold: NaN })),
  refusal('a negative limit', /limit/, 'linear', (m) => linear(m, { limit: -1 })),
  refusal('an unknown activation', /activation/, 'linear', (m) => linear(m, { activation: 8 })),
  refusal('an unknown kind of weight', /kind/, 'linear', (m) => linear(m, {}, { kind: 3 })),
  refusal('an unknown kind of function', /kind/, 'activation', (m) => ({
    x: m.of(4),
    out: m.of(4),
    count: 4,
    kind: 99,
  })),
  refusal('ids that are floats', /ids/, 'embedding', (m) => ({
    table: m.of(16),
    ids: m.of(2, 'f32'),
    out: m.of(8),
    rows: 2,
    width: 4,
    vocab: 4,
    scale: 1,
  })),
  refusal('tokens as floats', /out/, 'argmax', (m) => ({ x: m.of(4), out: m.of(1, 'f32'), rows: 1, width: 4 })),
  refusal('4-bit codes as floats', /codes/, 'dequantize4bit', (m) => bnb4(m, { codes: m.of(64, 'f32') })),
  refusal('a cast from integers', /x/, 'cast', (m) => ({ x: m.of(4, 'i32'), out: m.of(4) })),
  refusal('an unknown dtype', /b/, 'add', (m) => ({
    a: m.of(4),
    b: { ...m.of(4), dtypeCode: 12 },
    out: m.of(4),
    count: 4,
  })),
  refusal('an offset of half a byte', /b/, 'add', (m) => ({
    a: m.of(4),
    b: { ...m.of(4), offset: 0.5 },
    out: m.of(4),
    count: 1,
  })),
  refusal('an offset within an element', /a/, 'add', (m) => ({
    a: within(m.of(4), 4, 1),
    b: m.of(4),
    out: m.of(4),
    count: 1,
  })),
  refusal('a tensor past its buffer', /a/, 'add', (m) => ({
    a: { ...m.of(4), bytes: 2 ** 40 },
    b: m.of(4),
    out: m.of(4),
    count: 1,
  })),
  refusal('a buffer that does not exist', /a/, 'add', (m) => ({
    a: { ...m.of(4), buffer: 2 ** 40 },
    b: m.of(4),
    out: m.of(4),
    count: 1,
  })),
];

const memory = [
  refusal('rows written over their ids', /out/, 'embedding', (m) => {
    const out = m.of(4096);
    return { table: m.of(256), ids: as(out, 'i32', 256), out, rows: 64, width: 64, vocab: 4, scale: 1 };
  }),
  refusal('rows written over their table', /out/, 'embedding', (m) => {
    const table = m.of(64);
    return {
      table,
      ids: m.of(2, 'i32'),
      out: within(table, table.bytes / 8, 0),
      rows: 2,
      width: 4,
      vocab: 16,
      scale: 1,
    };
  }),
  refusal('rows moved within a tensor', /out/, 'selectRows', (m) => {
    const x = m.of(16);
    return { x, indices: m.of(4, 'i32'), out: x, rows: 4, width: 4 };
  }),
  refusal('a product over its input', /out/, 'linear', (m) => {
    const x = m.of(16);
    return linear(m, { x, out: x });
  }),
  refusal('a product over its weight', /out/, 'linear', (m) => {
    const part = dense(m, 8, 8);
    return linear(m, { out: within(part.weight, part.weight.bytes / 4, 0), parts: [part] });
  }),
  refusal('a residual that begins a little later', /out/, 'linear', (m) => {
    const both = m.of(32);
    const half = both.bytes / 2;
    return linear(m, { out: within(both, half, 0), residual: within(both, half, half / 16) });
  }),
  refusal('a sum shifted against its input', /out/, 'add', (m) => {
    const both = m.of(8);
    const [step, half] = [both.bytes / 8, both.bytes / 2];
    return { a: within(both, half, 0), b: m.of(4), out: within(both, half, step), count: 4 };
  }),
  refusal('a copy onto itself, shifted', /out/, 'copy', (m) => {
    const both = m.of(8);
    const [step, half] = [both.bytes / 8, both.bytes / 2];
    return { src: within(both, half, 0), out: within(both, half, step) };
  }),
  refusal('a cast in place', /out/, 'cast', (m) => {
    const x = m.of(4, 'f32');
    return { x, out: as(x, 'bf16', 8) };
  }),
  refusal('heads that lie in their weight', /x/, 'headNorm', (m) => {
    const one = headNorm(m);
    return { ...one, parts: [{ ...one.parts[0], weight: within(one.x, one.x.bytes / 2, 0) }] };
  }),
  refusal('columns over their source', /out/, 'concatColumns', (m) => {
    const one = concat(m);
    return { ...one, parts: [{ ...one.parts[0], x: within(one.out, one.out.bytes / 2, 0) }] };
  }),
  refusal('a gate over its input', /out/, 'gatedActivation', (m) => {
    const x = m.of(16);
    return { x, out: within(x, x.bytes / 2, 0), rows: 2, width: 4, kind: 1, limit: 0, upOffset: 0, dtype: 0 };
  }),
  refusal('attention over its queries', /out/, 'attention', (m) => {
    const qkv = m.of(3 * 96);
    return attention(m, { qkv, out: within(qkv, qkv.bytes / 3, 0) });
  }),
  refusal('tokens over the logits', /out/, 'sample', (m) => {
    const logits = m.of(20);
    return sample(m, { logits, out: as(logits, 'i32', 8) });
  }),
  refusal('codes over their values', /codes/, 'quantizeInt8', (m) => {
    const one = int8(m, 4, 4);
    return { ...one, codes: as(one.x, 'i8', 16) };
  }),
];

async function refused(context: Conformance, [what, field, command, make]: Refusal<CommandName>): Promise<void> {
  const { backend, dtype } = context;
  const made: Tensor[] = [];
  const of = (count: number, as_: DType = dtype): TensorRef => {
    const tensor = backend.empty([count], as_).keep();
    fill(tensor, 0);
    made.push(tensor);
    return tensor.ref();
  };
  let message: string | undefined;
  try {
    backend.submit(command, make({ backend, of }) as never);
    await backend.flush();
  } catch (error) {
    ({ message } = error as Error);
  }
  for (const tensor of made) tensor.dispose();
  if (message === undefined) fail(`${command} with ${what} is not refused`);
  if (!message!.includes(`[${command}]`) || !field.test(message!))
    fail(`${command} with ${what} is refused by "${message}", which should name the field (${field.source})`);
  await backend.flush(); // told once; the queue goes on
}

const all: readonly Refusal<CommandName>[] = [...sizes, ...values, ...memory];

const nothing: ConformanceCase = {
  name: 'zero rows do nothing, at once',
  run: async ({ backend, dtype }) => {
    const ref = (of: DType = dtype): TensorRef => {
      const one = backend.empty([64], of);
      return { ...one.ref(), bytes: 0 };
    };
    backend.scope(() => {
      const make: Make = { backend, of: (_, of) => ref(of) };
      const whole: Make = { backend, of: (count, of) => backend.empty([Math.max(count, 1)], of ?? dtype).ref() };
      const empty = { rows: 0, x: ref(), out: ref() };
      backend.submit('rmsNorm', { ...norm(whole), ...empty });
      backend.submit('softmax', { ...empty, width: 2 ** 31 - 1 });
      backend.submit('argmax', { ...empty, out: ref('i32'), width: 5 });
      backend.submit('linear', linear(whole, empty));
      backend.submit('sample', { ...sample(make), rows: 0 });
      backend.submit('quantizeInt8', { ...int8(make, 0, 2 ** 31 - 1) });
      backend.submit('attention', attention(whole, { tokens: 0, qkv: ref(), out: ref(), sequences: 0, maxQuery: 0 }));
    });
    await backend.flush();
  },
};

export const refusalCases: readonly ConformanceCase[] = [
  ...all.map((one): ConformanceCase => ({
    name: `refuses ${one[2]}: ${one[0]}`,
    run: (context) => refused(context, one),
  })),
  nothing,
];
