// Dates as Python's strftime in the C locale.
import type { Budget } from './budget.js';
import { fail } from './errors.js';

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

const DAY_MS = 86_400_000;
const two = (value: number, fill = '0'): string => String(value).padStart(2, fill);
const dayOfYear = (date: Date): number =>
  Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 1)) / DAY_MS,
  ) + 1;
const hour12 = (date: Date): number => date.getHours() % 12 || 12;
/** Week of the year; days before the first `first` are in week 0. @param first 0 Sunday, 1 Monday */
const week = (date: Date, first: number): number =>
  Math.floor((dayOfYear(date) + 6 - ((date.getDay() - first + 7) % 7)) / 7);

/** Year and week of ISO 8601. */
function isoWeek(date: Date): [number, number] {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() - ((date.getDay() + 6) % 7) + 3);
  return [thursday.getFullYear(), Math.floor((dayOfYear(thursday) - 1) / 7) + 1];
}

const directives: Readonly<Record<string, (date: Date) => string>> = {
  a: (date) => DAYS[date.getDay()].slice(0, 3),
  A: (date) => DAYS[date.getDay()],
  b: (date) => MONTHS[date.getMonth()].slice(0, 3),
  h: (date) => MONTHS[date.getMonth()].slice(0, 3),
  B: (date) => MONTHS[date.getMonth()],
  c: (date) => formatted(date, '%a %b %e %H:%M:%S %Y'),
  C: (date) => two(Math.floor(date.getFullYear() / 100)),
  d: (date) => two(date.getDate()),
  D: (date) => formatted(date, '%m/%d/%y'),
  e: (date) => two(date.getDate(), ' '),
  f: (date) => `${String(date.getMilliseconds()).padStart(3, '0')}000`,
  F: (date) => formatted(date, '%Y-%m-%d'),
  g: (date) => two(isoWeek(date)[0] % 100),
  G: (date) => String(isoWeek(date)[0]),
  H: (date) => two(date.getHours()),
  I: (date) => two(hour12(date)),
  j: (date) => String(dayOfYear(date)).padStart(3, '0'),
  k: (date) => two(date.getHours(), ' '),
  l: (date) => two(hour12(date), ' '),
  m: (date) => two(date.getMonth() + 1),
  M: (date) => two(date.getMinutes()),
  n: () => '\n',
  p: (date) => (date.getHours() < 12 ? 'AM' : 'PM'),
  P: (date) => (date.getHours() < 12 ? 'am' : 'pm'),
  r: (date) => formatted(date, '%I:%M:%S %p'),
  R: (date) => formatted(date, '%H:%M'),
  s: (date) => String(Math.floor(date.getTime() / 1000)),
  S: (date) => two(date.getSeconds()),
  t: () => '\t',
  T: (date) => formatted(date, '%H:%M:%S'),
  u: (date) => String(date.getDay() || 7),
  U: (date) => two(week(date, 0)),
  V: (date) => two(isoWeek(date)[1]),
  w: (date) => String(date.getDay()),
  W: (date) => two(week(date, 1)),
  x: (date) => formatted(date, '%m/%d/%y'),
  X: (date) => formatted(date, '%H:%M:%S'),
  y: (date) => two(date.getFullYear() % 100),
  Y: (date) => String(date.getFullYear()),
  // datetime.now() knows no time zone.
  z: () => '',
  Z: () => '',
  '%': () => '%',
};

/** A date and time, local, in a format; `%-d` leaves out padding. Unknown directives stay as they are. */
export function strftime(date: Date, format: string, budget: Budget): string {
  if (format.length > 1000) return fail('a format of a date has more than 1000 characters');
  budget.step(format.length * 4); // `%c` is made of seven others
  return formatted(date, format);
}

function formatted(date: Date, format: string): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (all, plain: string, directive: string) => {
    if (!Object.hasOwn(directives, directive)) return all;
    const text = directives[directive](date);
    return plain ? text.replace(/^[0 ]+(?=.)/, '') : text;
  });
}
