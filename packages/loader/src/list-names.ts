import { printable } from '@q/config';
import { maxListedNames } from './limits.js';

/** `1 tensor`, `3 tensors`. */
export const countOf = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** The first names of a list for a message, and how many more there are. Names are escaped and cut. */
export function listNames(names: readonly string[]): string {
  const shown = names
    .slice(0, maxListedNames)
    .map((name) => printable(name.length > 200 ? `${name.slice(0, 200)}...` : name));
  const more = names.length - shown.length;
  return shown.join(', ') + (more > 0 ? `, and ${more} more` : '');
}
