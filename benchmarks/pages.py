"""From pictures to predictions in four commands, and every page of HTML as a browser shows it: report/pages.py."""

from report.pages import main

if __name__ == "__main__":
    main()
