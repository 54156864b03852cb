import type { CommandArgs, CommandName } from '../driver/schema.js';
import { attention, ropeKvWrite } from './attention.js';
import { dtypeFromCode, type FloatDType } from '../dtype.js';
import { roundTo } from '../core/half.js';
import { eagerAttention, eagerHeadNorm, eagerLinear, eagerRope } from './eager.js';
import { expertLinear, mixChoices, route } from './experts.js';
import { normHeads } from './head-norm.js';
import { linear } from './linear.js';
import { activations, gated, mean, philox, softmaxOf } from './maths.js';
import type { Cells, ReferenceMemory } from './memory.js';
import { dequantize4bit, dequantizeInt8, quantize4bit, quantizeAbsmax, quantizeInt8 } from './quantization.js';
import { advance, argmaxOf, noToken, sample } from './sampling.js';

type Reference = { [N in CommandName]: (args: CommandArgs<N>, memory: ReferenceMemory) => void };

const rowOf = (x: Cells, row: number, width: number) => Array.from({ length: width }, (_, i) => x.get(row * width + i));

/** Adds the residual and writes the sum, then normalises row by row. */
function norm(
  args: CommandArgs<'layerNorm'> | CommandArgs<'rmsNorm'>,
  memory: ReferenceMemory,
  normalise: (row: number[]) => number[],
): void {
  const [x, out] = [memory.cells(args.x), memory.cells(args.out)];
  const residual = args.residual && memory.cells(args.residual);
  const sum = args.sum && memory.cells(args.sum);
  for (let row = 0; row < args.rows; row++) {
    const values = rowOf(x, row, args.width).map((value, i) => {
      const at = row * args.width + i;
      if (!residual || !sum) return value;
      sum.set(at, value + residual.get(at));
      return sum.get(at);
    });
    normalise(values).forEach((value, i) => out.set(row * args.width + i, value));
  }
}

function moveRows(
  source: Uint8Array,
  target: Uint8Array,
  rows: number,
  rowBytes: number,
  from: (row: number) => number,
  to: (row: number) => number,
): void {
  for (let row = 0; row < rows; row++)
    target.set(source.subarray(from(row) * rowBytes, (from(row) + 1) * rowBytes), to(row) * rowBytes);
}

/** Every command as plain loops in double precision; results are rounded once, to the dtype of the output. */
export const reference: Reference = {
  fill({ out, value }, memory) {
    const cells = memory.cells(out);
    for (let i = 0; i < cells.length; i++) cells.set(i, value);
  },

  random({ out, kind, scale, seed }, memory) {
    const cells = memory.cells(kind === 2 ? { ...out, dtypeCode: 4 } : out);
    const key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0] as const;
    for (let i = 0; i < cells.length; i++) {
      const [a, b] = philox([i, 0, 0, 0], key);
      const [u, v] = [(a + 0.5) / 2 ** 32, (b + 0.5) / 2 ** 32];
      const normal = Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v);
      cells.set(i, kind === 0 ? normal * scale : kind === 1 ? (2 * u - 1) * scale : a & 255);
    }
  },

  copy({ src, out }, memory) {
    memory.bytes(out.buffer, out.offset, out.bytes).set(memory.bytes(src.buffer, src.offset, src.bytes));
  },

  cast({ x, out }, memory) {
    const [from, to] = [memory.cells(x), memory.cells(out)];
    for (let i = 0; i < from.length; i++) to.set(i, from.get(i));
  },

  embedding(args, memory) {
    const [table, ids, out] = [memory.cells(args.table), memory.cells(args.ids), memory.cells(args.out)];
    for (let row = 0; row < args.rows; row++) {
      const id = ids.get(row);
      if (id < noToken || id >= args.vocab)
        throw new Error(`token id ${id} is outside the table of ${args.vocab} rows`);
      for (let i = 0; i < args.width; i++)
        out.set(row * args.width + i, id === noToken ? 0 : table.get(id * args.width + i) * args.scale);
    }
  },

  selectRows({ x, indices, out, rows }, memory) {
    const index = memory.cells(indices);
    const rowBytes = rows === 0 ? 0 : out.bytes / rows;
    moveRows(
      memory.bytes(x.buffer, x.offset, x.bytes),
      memory.bytes(out.buffer, out.offset, out.bytes),
      rows,
      rowBytes,
      (row) => index.get(row),
      (row) => row,
    );
  },

  scatterRows({ x, indices, out, rows }, memory) {
    const index = memory.cells(indices);
    const rowBytes = rows === 0 ? 0 : x.bytes / rows;
    moveRows(
      memory.bytes(x.buffer, x.offset, x.bytes),
      memory.bytes(out.buffer, out.offset, out.bytes),
      rows,
      rowBytes,
      (row) => row,
      (row) => index.get(row),
    );
  },

  concatColumns({ out, rows, rowStride, parts }, memory) {
    const to = memory.cells(out);
    for (const part of parts) {
      const from = memory.cells(part.x);
      for (let row = 0; row < rows; row++) {
        for (let piece = 0; piece < part.count; piece++) {
          const source = row * part.xRowStride + part.xOffset + piece * part.xStride;
          const target = row * rowStride + part.offset + piece * part.stride;
          for (let i = 0; i < part.width; i++) to.set(target + i, from.get(source + i));
        }
      }
    }
  },

  linear,
  route,
  expertLinear,
  mixChoices,

  rmsNorm(args, memory) {
    const weight = memory.cells(args.weight);
    norm(args, memory, (row) => {
      const scale = 1 / Math.sqrt(mean(row.map((value) => value * value)) + args.eps);
      return row.map((value, i) => value * scale * (weight.get(i) + args.weightOffset));
    });
  },

  layerNorm(args, memory) {
    const [weight, bias] = [args.weight && memory.cells(args.weight), args.bias && memory.cells(args.bias)];
    norm(args, memory, (row) => {
      const centre = mean(row);
      const scale = 1 / Math.sqrt(mean(row.map((value) => (value - centre) ** 2)) + args.eps);
      return row.map((value, i) => (value - centre) * scale * (weight?.get(i) ?? 1) + (bias?.get(i) ?? 0));
    });
  },

  headNorm: (args, memory) => normHeads(args, memory, { normalised: (value) => value, result: (value) => value }),

  ropeKvWrite,
  attention,

  activation({ x, out, count, kind }, memory) {
    const [from, to] = [memory.cells(x), memory.cells(out)];
    for (let i = 0; i < count; i++) to.set(i, activations[kind](from.get(i)));
  },

  gatedActivation({ x, out, rows, width, dtype, ...gate }, memory) {
    const [from, to] = [memory.cells(x), memory.cells(out)];
    const round = (value: number) => roundTo(dtypeFromCode(dtype) as FloatDType, value);
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < width; i++) {
        const at = row * 2 * width + i;
        to.set(row * width + i, gated(gate, from.get(at), from.get(at + width), round));
      }
    }
  },

  add({ a, b, out, count }, memory) {
    const [left, right, to] = [memory.cells(a), memory.cells(b), memory.cells(out)];
    for (let i = 0; i < count; i++) to.set(i, left.get(i) + right.get(i));
  },

  scale({ x, out, count, factor, softcap }, memory) {
    const [from, to] = [memory.cells(x), memory.cells(out)];
    for (let i = 0; i < count; i++) {
      const value = from.get(i) * factor;
      to.set(i, softcap > 0 ? softcap * Math.tanh(value / softcap) : value);
    }
  },

  softmax({ x, out, rows, width }, memory) {
    const [from, to] = [memory.cells(x), memory.cells(out)];
    for (let row = 0; row < rows; row++)
      softmaxOf(rowOf(from, row, width)).forEach((value, i) => to.set(row * width + i, value));
  },

  crossEntropy({ logits, targets, out, rows, width }, memory) {
    const [scores, target, to] = [memory.cells(logits), memory.cells(targets), memory.cells(out)];
    for (let row = 0; row < rows; row++) {
      const id = target.get(row);
      to.set(row, id < 0 ? 0 : -Math.log(softmaxOf(rowOf(scores, row, width))[id]));
    }
  },

  argmax({ x, out, rows, width }, memory) {
    const [from, to] = [memory.cells(x), memory.cells(out)];
    for (let row = 0; row < rows; row++) to.set(row, argmaxOf(rowOf(from, row, width)));
  },

  sample,
  advance,
  quantize4bit,
  dequantize4bit,
  quantizeAbsmax,
  quantizeInt8,
  dequantizeInt8,

  multiply({ a, b, out, rows, width, aStride, bStride }, memory) {
    const [left, right, to] = [memory.cells(a), memory.cells(b), memory.cells(out)];
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < width; i++)
        to.set(row * width + i, left.get(row * aStride + i) * right.get(row * bStride + i));
    }
  },

  eagerLinear,
  eagerRope,
  eagerHeadNorm,
  eagerAttention,
};
