import { quantTypes, type CommandArgs, type QuantType } from '../driver/schema.js';
import { codebooks } from '../quant/codebooks.js';
import { roundEven } from './maths.js';
import type { Cells, ReferenceMemory } from './memory.js';

const round = Math.fround;
const quantTypeOf = (code: number) => (Object.keys(quantTypes) as QuantType[])[code];

/** Codes by ascending value, and the f32 value above which the next one is chosen: the midpoint of two neighbours. */
function decisionTable(book: Float32Array): { codes: number[]; thresholds: number[] } {
  const codes = [...book.keys()].filter((code) => !(book[code] === 0 && code > 7)).sort((a, b) => book[a] - book[b]);
  const thresholds = codes.slice(1).map((code, i) => round((book[code] + book[codes[i]]) / 2));
  return { codes, thresholds };
}

/** Index into a decision table: how many thresholds lie below x. NaN (a block of zeros) lies above none. */
function nearest(thresholds: readonly number[], x: number): number {
  let index = 0;
  while (index < thresholds.length && x > thresholds[index]) index++;
  return index;
}

/** Blockwise absmax, and the code of x · (1 / absmax) for each value. */
export function quantize4bit(args: CommandArgs<'quantize4bit'>, memory: ReferenceMemory): void {
  const [x, codes, absmax] = [memory.cells(args.x), memory.cells(args.codes), memory.cells(args.absmax)];
  const quantType = quantTypeOf(args.quantType);
  const table = fourBitTable(quantType);
  for (let start = 0, block = 0; start < args.count; start += args.blockSize, block++) {
    const end = Math.min(start + args.blockSize, args.count);
    let largest = 0;
    for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(x.get(i)));
    absmax.set(block, largest);
    const inverse = round(1 / largest);
    for (let i = start; i < end; i++) {
      const code = table(round(x.get(i) * inverse));
      const shift = i % 2 === 0 ? 4 : 0;
      const byte = i % 2 === 0 ? 0 : codes.get(i >> 1);
      codes.set(i >> 1, byte | (code << shift));
    }
  }
}

/** fp4 decides by magnitude and keeps the sign, so that ties are symmetric; nf4 decides on the signed value. */
function fourBitTable(quantType: QuantType): (x: number) => number {
  const book = codebooks[quantType];
  if (quantType === 'nf4') {
    const { codes, thresholds } = decisionTable(book);
    return (x) => codes[nearest(thresholds, x)];
  }
  const { codes, thresholds } = decisionTable(book.slice(0, 8));
  return (x) => codes[nearest(thresholds, Math.abs(x))] | (x < 0 ? 8 : 0);
}

/** A reader of absmax per block, plain or nested. */
export function absmaxReader(args: Pick<CommandArgs<'dequantize4bit'>, 'absmax' | 'nestedAbsmax' | 'nestedCode' | 'offset' | 'nestedBlockSize'>, memory: ReferenceMemory): (block: number) => number {
  const absmax = memory.cells(args.absmax);
  if (!args.nestedAbsmax) return (block) => absmax.get(block);
  const [nested, code, offset] = [memory.cells(args.nestedAbsmax), memory.cells(args.nestedCode!), memory.cells(args.offset!)];
  return (block) => round(round(code.get(absmax.get(block)) * nested.get(Math.floor(block / args.nestedBlockSize))) + offset.get(0));
}

/** A reader of dequantized 4-bit values by flat index. */
export function bnb4Reader(codes: Cells, absmaxOf: (block: number) => number, blockSize: number, quantType: number): (index: number) => number {
  const book = codebooks[quantTypeOf(quantType)];
  return (i) => {
    const byte = codes.get(i >> 1);
    return round(book[i % 2 === 0 ? byte >> 4 : byte & 15] * absmaxOf(Math.floor(i / blockSize)));
  };
}

export function dequantize4bit(args: CommandArgs<'dequantize4bit'>, memory: ReferenceMemory): void {
  const out = memory.cells(args.out);
  const value = bnb4Reader(memory.cells(args.codes), absmaxReader(args, memory), args.blockSize, args.quantType);
  for (let i = 0; i < args.count; i++) out.set(i, value(i));
}

export function quantizeAbsmax(args: CommandArgs<'quantizeAbsmax'>, memory: ReferenceMemory): void {
  const [x, out, nested, code, offset] = [args.x, args.out, args.nestedAbsmax, args.nestedCode, args.offset].map((ref) => memory.cells(ref));
  let sum = 0;
  for (let i = 0; i < args.count; i++) sum += x.get(i);
  const mean = round(sum / args.count);
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
export const int8Code = (x: number, largest: number): number => (largest === 0 ? 0 : roundEven(round(x * round(127 / largest))));

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
    out.set(i, round(codes.get(i) * round(absmax.get(Math.floor(i / args.width)) / 127)));
  }
}
