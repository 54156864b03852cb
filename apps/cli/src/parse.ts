import { InvalidArgumentError } from 'commander';

const number =
  (accept: (value: number) => boolean, what: string) =>
  (text: string): number => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!accept(value)) throw new InvalidArgumentError(`It must be ${what}.`);
    return value;
  };

/** Parsers of option values; each throws InvalidArgumentError, which commander reports with the option's name. */
export const positiveInteger = number(
  (value) => Number.isSafeInteger(value) && value > 0,
  'a whole number of 1 or more',
);
export const wholeNumber = number((value) => Number.isSafeInteger(value) && value >= 0, 'a whole number of 0 or more');
export const positiveNumber = number((value) => Number.isFinite(value) && value > 0, 'a number above 0');
export const numberFromZero = number((value) => Number.isFinite(value) && value >= 0, 'a number of 0 or more');
export const probability = number((value) => value >= 0 && value <= 1, 'a number from 0 to 1');

/** Adds up the values of an option that may be given several times. */
export const collect = (value: string, previous: readonly string[] = []): string[] => [...previous, value];
