import { quantTypes, type CommandArgs, type QuantType } from '../driver/schema.js';
import { codebooks } from '../formats/bnb4/codebooks.js';
import { roundEven } from './maths.js';
import type { Cells, ReferenceMemory } from './memory.js';

const round = Math.fround;
const quantTypeOf = (code: number) => (Object.keys(quantTypes) as QuantType[])[code];

/** Values above which the next nf4 code is chosen: the midpoints of neighbours. */
const nf4Cuts = [...codebooks.nf4.slice(1)].map((value, i) => round((value + codebooks.nf4[i]) / 2));

/** The same for fp4 by magnitude, in the decimals in which bitsandbytes writes them, and the codes in that order. */
const fp4Cuts = [0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333].map(round);
const fp4Order = [0, 1, 6, 7, 4, 5, 2, 3];

/** Index into a decision table: how many thresholds lie below x. NaN (a block of zeros) lies above none. */
function nearest(thresholds: readonly number[], x: number): number {
  let index = 0;
  while (index < thresholds.length && x > thresholds[index]) index++;
  return index;
}

/** Blockwise absmax, and the code of x · (1 / absmax) for each value. */
export function quantize4bit(args: CommandArgs<'quantize4bit'>, memory: ReferenceMemory): void {
  const [x, codes, absmax] = [memory.cells(args.x), memory.cells(args.codes), memory.cells(args.absmax)];
  const table = fourBitTables[quantTypeOf(args.quantType)];
  for (let start = 0, block = 0; start < args.count; start += args.blockSize, block++) {
    const end = Math.min(start + args.blockSize, args.count);
    let largest = 0;
    for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(x.get(i)));
    absmax.set(block, largest);
    const inverse = round(1 / largest);
    for (let i = start; i < end; i++) {
      const code = table(round(x.get(i) * inverse));
      if (i % 2 === 0)
        codes.set(i >> 1, (code << 4) | table(0)); // an odd count ends with the code of 0
      else codes.set(i >> 1, (codes.get(i >> 1) & 0xf0) | code);
    }
  }
}

/** fp4 decides by magnitude and keeps the sign, so that ties are symmetric; nf4 decides on the signed value. */
const fourBitTables: Readonly<Record<QuantType, (x: number) => number>> = {
  nf4: (x) => nearest(nf4Cuts, x),
  fp4: (x) => fp4Order[nearest(fp4Cuts, Math.abs(x))] | (x < 0 ? 8 : 0),
};

/** A reader of absmax per block, plain or nested. */
export function absmaxReader(
  args: Pick<CommandArgs<'dequantize4bit'>, 'absmax' | 'nestedAbsmax' | 'nestedCode' | 'offset' | 'nestedBlockSize'>,
  memory: ReferenceMemory,
): (block: number) => number {
  const absmax = memory.cells(args.absmax);
  if (!args.nestedAbsmax) return (block) => absmax.get(block);
  const [nested, code, offset] = [
    memory.cells(args.nestedAbsmax),
    memory.cells(args.nestedCode!),
    memory.cells(args.offset!),
  ];
  return (block) =>
    round(round(code.get(absmax.get(block)) * nested.get(Math.floor(block / args.nestedBlockSize))) + offset.get(0));
}

/** The 16 values of a 4-bit type. */
export const codebookOf = (quantType: number): Float32Array => codebooks[quantTypeOf(quantType)];

/** A reader of dequantized 4-bit values by flat index. */
export function bnb4Reader(
  codes: Cells,
  absmaxOf: (block: number) => number,
  blockSize: number,
  book: Float32Array,
): (index: number) => number {
  return (i) => {
    const byte = codes.get(i >> 1);
    return round(book[i % 2 === 0 ? byte >> 4 : byte & 15] * absmaxOf(Math.floor(i / blockSize)));
  };
}

export function dequantize4bit(args: CommandArgs<'dequantize4bit'>, memory: ReferenceMemory): void {
  const out = memory.cells(args.out);
  const value = bnb4Reader(
    memory.cells(args.codes),
    absmaxReader(args, memory),
    args.blockSize,
    codebookOf(args.quantType),
  );
  for (let i = 0; i < args.count; i++) out.set(i, value(i));
}

/**
 * The f32 mean, added in the order of torch's CUDA reduction with one block of up to 512 threads, four sums each: the
 * offset of nested absmax is that mean. From 32768 values on the order there depends on the GPU.
 */
function meanOf(x: readonly number[]): number {
  const n = x.length;
  const vectors = n >= 128;
  const threads = Math.min(512, 2 ** Math.floor(Math.log2(Math.max(1, vectors ? Math.floor(n / 4) : n))));
  const [inner, outer] = vectors ? [1, 4] : [threads, 1];
  const sums = Array.from({ length: threads }, (_, t) => {
    const four = [0, 0, 0, 0];
    let i = t;
    for (; i * outer + 3 * inner < n; i += vectors ? threads : 4 * threads) {
      for (let j = 0; j < 4; j++) four[j] = round(four[j] + x[i * outer + j * inner]);
    }
    const tail = n - (n % 4) + t;
    if (vectors && tail < n) four[0] = round(four[0] + x[tail]);
    for (let j = 0; !vectors && i < n; i += threads, j++) four[j] = round(four[j] + x[i]);
    return four.reduce((sum, value) => round(sum + value));
  });
  for (let half = threads / 2; half >= 1; half /= 2) {
    for (let t = 0; t < half; t++) sums[t] = round(sums[t] + sums[t + half]);
  }
  return round(sums[0] * round(1 / n));
}

export function quantizeAbsmax(args: CommandArgs<'quantizeAbsmax'>, memory: ReferenceMemory): void {
  const [x, out, nested, code, offset] = [args.x, args.out, args.nestedAbsmax, args.nestedCode, args.offset].map(
    (ref) => memory.cells(ref),
  );
  const mean = meanOf(Array.from({ length: args.count }, (_, i) => x.get(i)));
  offset.set(0, mean);
  const book = Array.from({ length: code.length }, (_, i) => code.get(i));
  const thresholds = book.slice(1).map((value, i) => round((value + book[i]) / 2));
  for (let start = 0, block = 0; start < args.count; start += args.blockSize, block++) {
    const end = Math.min(start + args.blockSize, args.count);
    const centred = Array.from({ length: end - start }, (_, i) => round(x.get(start + i) - mean));
    const largest = centred.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    nested.set(block, largest);
    const inverse = round(1 / largest);
    centred.forEach((value, i) => out.set(start + i, nearest(thresholds, round(value * inverse))));
  }
}

/** Code of x in a row of absmax `largest`. */
export const int8Code = (x: number, largest: number): number =>
  largest === 0 ? 0 : roundEven(round(x * round(127 * round(1 / largest))));

export function quantizeInt8(args: CommandArgs<'quantizeInt8'>, memory: ReferenceMemory): void {
  const [x, codes, absmax] = [memory.cells(args.x), memory.cells(args.codes), memory.cells(args.absmax)];
  for (let row = 0; row < args.rows; row++) {
    const start = row * args.width;
    let largest = 0;
    for (let i = start; i < start + args.width; i++) largest = Math.max(largest, Math.abs(x.get(i)));
    absmax.set(row, largest);
    for (let i = start; i < start + args.width; i++) codes.set(i, int8Code(x.get(i), largest));
  }
}

export function dequantizeInt8(args: CommandArgs<'dequantizeInt8'>, memory: ReferenceMemory): void {
  const [codes, absmax, out] = [memory.cells(args.codes), memory.cells(args.absmax), memory.cells(args.out)];
  for (let i = 0; i < args.rows * args.width; i++) {
    out.set(i, round(round(codes.get(i) * absmax.get(Math.floor(i / args.width))) * round(1 / 127)));
  }
}
