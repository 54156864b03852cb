import { weightKinds, type CommandArgs } from '../driver/schema.js';
import { activations, gated } from './maths.js';
import { absmaxReader, bnb4Reader, codebookOf, int8Code } from './quantization.js';
import type { Cells, ReferenceMemory } from './memory.js';

type Part = CommandArgs<'linear'>['parts'][number];
type Product = (row: number, column: number) => number;

function floatProduct(x: Cells, k: number, weight: (index: number) => number): Product {
  return (row, column) => {
    let sum = 0;
    for (let i = 0; i < k; i++) sum += x.get(row * k + i) * weight(column * k + i);
    return sum;
  };
}

/**
 * LLM.int8: the row's outliers (|x| >= threshold > 0) times dequantized codes, plus the integer product of the rest.
 */
function int8Product(x: Cells, k: number, part: Part, memory: ReferenceMemory, rows: number): Product {
  const [codes, absmax] = [memory.cells(part.weight), memory.cells(part.absmax!)];
  const isOutlier = (value: number) => part.threshold > 0 && Math.abs(value) >= part.threshold;
  const largest = Array.from({ length: rows }, (_, row) => {
    let max = 0;
    for (let i = 0; i < k; i++) if (!isOutlier(x.get(row * k + i))) max = Math.max(max, Math.abs(x.get(row * k + i)));
    return max;
  });
  return (row, column) => {
    let [integer, outliers] = [0, 0];
    for (let i = 0; i < k; i++) {
      const value = x.get(row * k + i);
      const code = codes.get(column * k + i);
      if (isOutlier(value)) outliers += (value * code * absmax.get(column)) / 127;
      else integer += int8Code(value, largest[row]) * code;
    }
    return (integer * largest[row] * absmax.get(column)) / (127 * 127) + outliers;
  };
}

function bnb4Product(x: Cells, k: number, part: Part, memory: ReferenceMemory): Product {
  const absmaxOf = absmaxReader({ ...part, absmax: part.absmax! }, memory);
  return floatProduct(
    x,
    k,
    bnb4Reader(memory.cells(part.weight), absmaxOf, part.blockSize, codebookOf(part.quantType)),
  );
}

function denseProduct(x: Cells, k: number, part: Part, memory: ReferenceMemory): Product {
  const values = memory.cells(part.weight);
  return floatProduct(x, k, (i) => values.get(i));
}

/** What a part computes, by its kind. */
export const products: Readonly<
  Record<number, (x: Cells, k: number, part: Part, memory: ReferenceMemory, rows: number) => Product>
> = {
  [weightKinds.dense]: denseProduct,
  [weightKinds.bnb4]: bnb4Product,
  [weightKinds.int8]: int8Product,
};

export function linear(args: CommandArgs<'linear'>, memory: ReferenceMemory): void {
  const [x, out] = [memory.cells(args.x), memory.cells(args.out)];
  const residual = args.residual && memory.cells(args.residual);
  const act = activations[args.activation];
  const parts = args.parts.map((part) => ({
    n: part.n,
    bias: part.bias && memory.cells(part.bias),
    product: products[part.kind](x, args.k, part, memory, args.rows),
  }));
  const columns = parts.flatMap(({ n, bias, product }) =>
    Array.from({ length: n }, (_, column) => (row: number) => product(row, column) + (bias?.get(column) ?? 0)),
  );
  const width = args.gated ? parts[0].n : columns.length;
  for (let row = 0; row < args.rows; row++) {
    for (let column = 0; column < width; column++) {
      const first = columns[column](row);
      const y = args.gated
        ? gated({ ...args, kind: args.activation }, first, columns[width + column](row))
        : act(first);
      const at = row * width + column;
      out.set(at, y + (residual?.get(at) ?? 0));
    }
  }
}
