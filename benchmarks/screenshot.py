"""Take a picture of a page of HTML: report/screenshot.py."""

from report.screenshot import main

if __name__ == "__main__":
    main()
