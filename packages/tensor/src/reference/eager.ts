import { dtypeFromCode, type FloatDType } from '../dtype.js';
import { roundTo } from '../core/half.js';
import { weightKinds, type CommandArgs } from '../driver/schema.js';
import { attention, queryScaling } from './attention.js';
import { normHeads } from './head-norm.js';
import { absmaxReader, bnb4Reader, codebookOf, int8Code } from './quantization.js';
import type { Cells, ReferenceMemory } from './memory.js';

type Linear = CommandArgs<'eagerLinear'>;
type Part = Linear['parts'][number];
type Round = (value: number) => number;
type Product = (row: number, column: number) => number;

const roundingTo = (code: number): Round => {
  const dtype = dtypeFromCode(code) as FloatDType;
  return (value) => roundTo(dtype, value);
};
const toF32 = Math.fround;
const toF16: Round = (value) => roundTo('f16', value);

function densePart(x: Cells, { k, dtype }: Linear, part: Part, memory: ReferenceMemory): Product {
  const [weight, bias, round] = [memory.cells(part.weight), part.bias && memory.cells(part.bias), roundingTo(dtype)];
  return (row, column) => {
    let sum = bias?.get(column) ?? 0;
    for (let i = 0; i < k; i++) sum += x.get(row * k + i) * weight.get(column * k + i);
    return round(sum);
  };
}

function bnb4Part(x: Cells, { rows, k, dtype }: Linear, part: Part, memory: ReferenceMemory): Product {
  const [codes, bias] = [memory.cells(part.weight), part.bias && memory.cells(part.bias)];
  const [round, compute] = [roundingTo(dtype), roundingTo(part.computeDtype)];
  const few = rows <= 4 && k % part.blockSize === 0;
  const absmaxOf = absmaxReader({ ...part, absmax: part.absmax! }, memory);
  const read = bnb4Reader(
    codes,
    few ? (block) => compute(absmaxOf(block)) : absmaxOf,
    part.blockSize,
    few ? codebookOf(part.quantType).map(compute) : codebookOf(part.quantType),
  );
  const product: Round = few ? compute : (value) => value;
  return (row, column) => {
    let sum = bias ? compute(bias.get(column)) : 0;
    for (let i = 0; i < k; i++) sum += product(compute(x.get(row * k + i)) * compute(read(column * k + i)));
    return round(compute(sum));
  };
}

/** bitsandbytes' MatMul8bitLt without gradients: int8_vectorwise_quant and int8_mixed_scaled_mm. */
function int8Part(x: Cells, { rows, k, dtype }: Linear, part: Part, memory: ReferenceMemory): Product {
  const [weight, absmax, bias, round] = [
    memory.cells(part.weight),
    memory.cells(part.absmax!),
    part.bias && memory.cells(part.bias),
    roundingTo(dtype),
  ];
  const fusesBias = dtypeFromCode(dtype) === 'f16';
  const isOutlier = (value: number) => part.threshold > 0 && Math.abs(value) >= part.threshold;
  const at = (row: number, i: number) => toF16(x.get(row * k + i));
  const all = Array.from({ length: rows }, (_, row) => row);
  const columns = Array.from({ length: k }, (_, i) => i);
  const outliers = columns.filter((i) => all.some((row) => isOutlier(at(row, i))));
  const regular = columns.filter((i) => !outliers.includes(i));
  const largest = all.map((row) =>
    columns.reduce((max, i) => (isOutlier(at(row, i)) ? max : Math.max(max, Math.abs(at(row, i)))), 0),
  );
  const codes = all.map((row) => regular.map((i) => int8Code(at(row, i), largest[row])));
  return (row, column) => {
    const integer = regular.reduce((sum, i, j) => sum + codes[row][j] * weight.get(column * k + i), 0);
    const scaled = toF32(toF32(toF32(integer) * largest[row]) * absmax.get(column)) * toF32(6.200012e-5);
    const shift = bias?.get(column) ?? 0;
    const y = round(fusesBias ? toF16(scaled + shift) : toF16(toF16(scaled) + shift));
    if (outliers.length === 0) return y;
    const dense = (i: number) => round(toF32(weight.get(column * k + i) * absmax.get(column)) * toF32(1 / 127));
    return round(outliers.reduce((sum, i) => sum + round(x.get(row * k + i)) * dense(i), y));
  };
}

/** What a part computes, by its kind. */
const products: Readonly<Record<number, (x: Cells, args: Linear, part: Part, memory: ReferenceMemory) => Product>> = {
  [weightKinds.dense]: densePart,
  [weightKinds.bnb4]: bnb4Part,
  [weightKinds.int8]: int8Part,
};

export function eagerLinear(args: Linear, memory: ReferenceMemory): void {
  const [x, out] = [memory.cells(args.x), memory.cells(args.out)];
  const width = args.parts.reduce((sum, { n }) => sum + n, 0);
  let first = 0;
  for (const part of args.parts) {
    const product = products[part.kind](x, args, part, memory);
    for (let row = 0; row < args.rows; row++) {
      for (let column = 0; column < part.n; column++) out.set(row * width + first + column, product(row, column));
    }
    first += part.n;
  }
}

/** Where the heads of a row begin: queries, then keys. */
function headStarts(args: CommandArgs<'eagerRope'>): number[] {
  const group = args.numHeads / args.numKvHeads;
  return [
    ...Array.from(
      { length: args.numHeads },
      (_, head) => args.qOffset + Math.floor(head / group) * args.qGroupStride + (head % group) * args.headDim,
    ),
    ...Array.from({ length: args.numKvHeads }, (_, head) => args.kOffset + head * args.kvStride),
  ];
}

export function eagerRope(args: CommandArgs<'eagerRope'>, memory: ReferenceMemory): void {
  const [qkv, positions, sequenceOf, frequencies] = [
    args.qkv,
    args.positions,
    args.sequenceOf,
    args.inverseFrequencies,
  ].map((ref) => memory.cells(ref));
  const round = roundingTo(args.dtype);
  const half = args.rotaryDim / 2;
  const starts = headStarts(args);
  const rotate = (token: number): void => {
    for (let i = 0; i < half; i++) {
      const angle = toF32(
        positions.get(token) * frequencies.get((args.perSequence ? sequenceOf.get(token) * half : 0) + i),
      );
      const [cos, sin] = [round(Math.cos(angle) * args.ropeScale), round(Math.sin(angle) * args.ropeScale)];
      for (const start of starts) {
        const base = token * args.rowStride + start + args.rotaryOffset;
        const [a, b] = args.interleaved ? [base + 2 * i, base + 2 * i + 1] : [base + i, base + i + half];
        const [first, second] = [qkv.get(a), qkv.get(b)];
        qkv.set(a, round(round(first * cos) - round(second * sin)));
        qkv.set(b, round(round(second * cos) + round(first * sin)));
      }
    }
  };
  const scale = (token: number): void => {
    const scaling = round(queryScaling(args, positions.get(token)));
    for (const start of starts.slice(0, args.numHeads)) {
      const base = token * args.rowStride + start;
      for (let i = 0; i < args.headDim; i++) qkv.set(base + i, round(qkv.get(base + i) * scaling));
    }
  };
  for (let token = 0; token < args.tokens; token++) {
    rotate(token);
    if (args.scalingBeta !== 0) scale(token);
  }
}

export function eagerHeadNorm(args: CommandArgs<'eagerHeadNorm'>, memory: ReferenceMemory): void {
  const round = roundingTo(args.dtype);
  normHeads(args, memory, { normalised: args.roundFirst ? round : (value) => value, result: round });
}

/** Weights are rounded before they multiply the values, their sum is not; see {@link attention}. */
export function eagerAttention(args: CommandArgs<'eagerAttention'>, memory: ReferenceMemory): void {
  const round = roundingTo(args.dtype);
  attention(args, memory, {
    mix: (scores) => {
      const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
      const weights = scores.map((score) => (score === -Infinity ? 0 : Math.exp(score - max)));
      const sum = weights.reduce((a, b) => a + b, 0);
      return weights.map((weight) => round(weight) / sum);
    },
    round,
  });
}
