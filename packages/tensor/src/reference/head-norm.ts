import type { CommandArgs } from '../driver/schema.js';
import { mean } from './maths.js';
import type { ReferenceMemory } from './memory.js';

type Round = (value: number) => number;

/** @param rounds what is rounded beside the dtype of x: the head before the weight, and the result */
export function normHeads(
  args: CommandArgs<'headNorm'>,
  memory: ReferenceMemory,
  { normalised, result }: { normalised: Round; result: Round },
): void {
  const x = memory.cells(args.x);
  for (const part of args.parts) {
    const weight = memory.cells(part.weight);
    for (let row = 0; row < args.rows; row++) {
      for (let head = 0; head < part.count; head++) {
        const [group, within] = [Math.floor(head / part.group), head % part.group];
        const at = row * args.rowStride + part.offset + group * part.groupStride + within * part.width;
        const values = Array.from({ length: part.width }, (_, i) => x.get(at + i));
        const centre = args.centred ? mean(values) : 0;
        const scale = 1 / Math.sqrt(mean(values.map((value) => (value - centre) ** 2)) + args.eps);
        values.forEach((value, i) => {
          const factor = weight.get(head * part.weightStride + i) + args.weightOffset;
          x.set(at + i, result(normalised((value - centre) * scale) * factor));
        });
      }
    }
  }
}
